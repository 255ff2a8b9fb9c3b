"""Settings as JSON and back, and settings with some fields changed.

Works on any dataclass of `config/`, and knows none of them.
"""

import dataclasses
import types
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Config = TypeVar("Config")


def override(config: Config, **values: Any) -> Config:
    """Return a copy with the given fields; those that are `None` keep what they were.

    Raises:
        ValueError: A value breaks its field's rule.
    """
    given = {name: value for name, value in values.items() if value is not None}
    return dataclasses.replace(config, **given)  # type: ignore[type-var]


def to_dict(config: Any) -> dict[str, Any]:
    """Turn a config into plain values that JSON can hold."""
    return dataclasses.asdict(config)


def from_dict(kind: type[Config], values: dict[str, Any]) -> Config:
    """Build a config of `kind` from `to_dict`'s values, checks included.

    Raises:
        ValueError: A field is unknown or missing, or a value is of another kind or breaks its rule.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{kind.__name__} is {values!r}: it must be an object of fields")
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(
            f"{kind.__name__} has no field {', '.join(unknown)}: the file is of another version; "
            f"the fields are {', '.join(hints)}"
        )
    try:
        return kind(**{name: _restore(hints[name], value) for name, value in values.items()})
    except TypeError as error:
        raise ValueError(
            f"{kind.__name__} cannot be made of {values}: a field is missing or of another kind "
            f"({error}); correct it, or make the file again"
        ) from error


def merge(config: Config, values: dict[str, Any]) -> Config:
    """Return a copy with the fields of a JSON object, nested ones too; the others stay.

    Raises:
        ValueError: As `from_dict`.
    """
    return from_dict(type(config), _merged(to_dict(config), values))


def _merged(old: Any, new: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return old | {name: _merged(old.get(name), value) for name, value in new.items()}


def _restore(hint: Any, value: Any) -> Any:
    """Give a JSON value the type that a field declares: nested configs and tuples."""
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value)  # type: ignore[arg-type]
    if hint is Path:
        return Path(value)
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{value!r} is no list")
        inner = get_args(hint)[0]
        return tuple(_restore(inner, item) for item in value)
    if get_origin(hint) is types.UnionType and value is not None:
        return _restore(get_args(hint)[0], value)
    return value
