"""The ranges that settings declare as types, and the check that all settings use."""

import dataclasses
from typing import Annotated, Any, Literal, get_args, get_origin

_POSITIVE_INT = "it must be a positive whole number"
_POSITIVE = "it must be a positive number"
_NOT_NEGATIVE_INT = "it must be a whole number, 0 or more"
_NOT_NEGATIVE = "it must be 0 or more"
_RATIO = "it must lie in 0..1"
_FILE_NAME = "it names a folder; use letters, digits, - and _"
PositiveInt = Annotated[int, _POSITIVE_INT]
PositiveFloat = Annotated[float, _POSITIVE]
NotNegativeInt = Annotated[int, _NOT_NEGATIVE_INT]
NotNegativeFloat = Annotated[float, _NOT_NEGATIVE]
Ratio = Annotated[float, _RATIO]
FileName = Annotated[str, _FILE_NAME]


def check_fields(config: Any) -> None:
    """Raise an error for a value outside the range or the choices that its field declares.

    Raises:
        ValueError: The message names the field, its value, and the rule.
    """
    for field in dataclasses.fields(config):
        # The rule may stand in a part of the type: `PositiveInt | None`, `tuple[Tracker, ...]`.
        value, parts = getattr(config, field.name), (field.type, *get_args(field.type))
        if value is None and type(None) in parts:
            continue
        for part in parts:
            for rule in getattr(part, "__metadata__", ()):
                if not _HOLDS[rule](value):
                    raise ValueError(f"{field.name} is {value!r}: {rule}")
            choices, is_tuple = get_args(part), get_origin(field.type) is tuple
            items, subject = (value, "each") if is_tuple else ((value,), "it")
            if get_origin(part) is Literal and not all(item in choices for item in items):
                raise ValueError(
                    f"{field.name} is {value!r}: {subject} must be one of {', '.join(choices)}"
                )


def is_file_name(value: str) -> bool:
    """Return whether a visible file or folder can have this name on any system."""
    is_plain = not any(sign in value for sign in '/\\:*?"<>|')
    return bool(value) and is_plain and not value.startswith(".")


_HOLDS = {
    _POSITIVE_INT: lambda value: isinstance(value, int) and value > 0,
    _POSITIVE: lambda value: 0 < value < float("inf"),
    _NOT_NEGATIVE_INT: lambda value: isinstance(value, int) and value >= 0,
    _NOT_NEGATIVE: lambda value: 0 <= value < float("inf"),
    _RATIO: lambda value: 0 <= value <= 1,
    _FILE_NAME: is_file_name,
}
