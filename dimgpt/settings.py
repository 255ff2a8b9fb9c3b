"""Converts settings to JSON and back, and changes fields of settings.

Works on any dataclass of `config/`, and imports none of them.
"""

import dataclasses
import difflib
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

Config = TypeVar("Config")
_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}

to_dict = dataclasses.asdict
"""Turn a config into JSON values."""


def override(config: Config, **values: Any) -> Config:
    """Return a copy with the given fields; `None` keeps a field's value.

    Raises:
        ValueError: A value breaks its field's rule.
    """
    given = {name: value for name, value in values.items() if value is not None}
    return dataclasses.replace(config, **given)  # type: ignore[type-var]


def from_dict(kind: type[Config], values: dict[str, Any]) -> Config:
    """Build a config of `kind` from `to_dict`'s values, checks included.

    Raises:
        ValueError: A field is unknown or missing, or a value is of another kind or breaks its rule.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{kind.__name__} is {values!r}: it must be an object of fields")
    hints = get_type_hints(kind)
    if unknown := sorted(values.keys() - hints.keys()):
        raise ValueError(
            f"{kind.__name__} has no field {', '.join(map(repr, unknown))}: the file is of another "
            f"version; the fields are {', '.join(hints)}"
        )
    restored = {
        name: _restore(hints[name], value, f"{kind.__name__}.{name}")
        for name, value in values.items()
    }
    try:
        return kind(**restored)
    except TypeError as error:
        raise ValueError(
            f"{kind.__name__} cannot be made of {values}: a field is missing ({error}); add it, or "
            "make the file again"
        ) from error


def merge(config: Config, values: dict[str, Any]) -> Config:
    """Return a copy with the fields of a JSON object, including nested ones; the others stay.

    Raises:
        ValueError: As `from_dict`.
    """
    return from_dict(type(config), _merged(to_dict(config), values))  # type: ignore[call-overload]


def _merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return old | {name: _merged(old.get(name), value) for name, value in new.items()}


def _restore(hint: Any, value: Any, name: str) -> Any:
    """Convert a JSON value to the declared type of a field: nested configs and tuples."""
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value)  # type: ignore
    if get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{name} is {value!r}: it must be an object with names; correct it")
        kind = get_args(hint)[1]
        return {key: _restore(kind, item, f"{name}.{key}") for key, item in value.items()}
    if hint is Path:
        return value if isinstance(value, Path) else Path(_restore(str, value, name))
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} is {value!r}: it must be a list; correct it")
        return tuple(_restore(get_args(hint)[0], item, name) for item in value)
    if get_origin(hint) in (Union, types.UnionType):
        return None if value is None else _restore(get_args(hint)[0], value, name)
    wanted = {int, float} if hint is float else {hint}  # `type`, because bool is a kind of int
    if hint in _PLAIN and type(value) not in wanted:
        raise ValueError(f"{name} is {value!r}: it must be {_PLAIN[hint]}; correct it")
    return value


def nearest(word: str, names: Iterable[str]) -> str:
    """Return a hint with the name most similar to a mistyped one, or "" if there is none."""
    found = difflib.get_close_matches(word, list(names), n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""
