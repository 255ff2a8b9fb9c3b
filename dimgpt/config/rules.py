"""The checks that settings share: each error names the field, its value, and the rule."""

import dataclasses
from typing import Any, Literal, get_args, get_origin


def require_positive(config: Any, *names: str) -> None:
    """Refuse fields that are not a positive number."""
    for name in names:
        if not 0 < (value := getattr(config, name)) < float("inf"):
            raise ValueError(f"{name} is {value}: it must be a positive number")


def require_none_or_positive(config: Any, *names: str) -> None:
    """Refuse fields that are neither `None` nor a positive number."""
    require_positive(config, *(name for name in names if getattr(config, name) is not None))


def require_not_negative(config: Any, *names: str) -> None:
    """Refuse fields that are not 0 or a positive number."""
    for name in names:
        if not 0 <= (value := getattr(config, name)) < float("inf"):
            raise ValueError(f"{name} is {value}: it must be 0 or more")


def require_ratio(config: Any, *names: str) -> None:
    """Refuse fields that do not lie in 0..1."""
    for name in names:
        if not 0 <= (value := getattr(config, name)) <= 1:
            raise ValueError(f"{name} is {value}: it must lie in 0..1")


def require_choices(config: Any) -> None:
    """Refuse a value that the `Literal` of its field does not list."""
    for field in dataclasses.fields(config):
        value, choices = getattr(config, field.name), get_args(field.type)
        if get_origin(field.type) is Literal and value not in choices:
            raise ValueError(f"{field.name} is {value!r}: it must be one of {', '.join(choices)}")


def is_file_name(value: str) -> bool:
    """Say whether a file or folder can have this name on any system, and is not hidden."""
    is_plain = not any(sign in value for sign in '/\\:*?"<>|')
    return bool(value) and is_plain and not value.startswith(".")


def require_file_name(config: Any, name: str) -> None:
    """Refuse a field that cannot name a folder."""
    value = getattr(config, name)
    if not is_file_name(value):
        raise ValueError(f"{name} is {value!r}: it names a folder; use letters, digits, - and _")
