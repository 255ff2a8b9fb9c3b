"""Numbers and switches from the settings of a foreign file, taken only if they are what they say.

What such settings mean is the matter of each system's own file.
"""

from collections.abc import Mapping
from typing import Any

_MAX_WHOLE = 2**31


def whole_number(
    settings: Mapping[str, Any], name: str, default: int | None = None, *, source: str
) -> int:
    """Return a positive whole number; the default, if there is one, where it is missing or null.

    Raises:
        ValueError: It is missing without a default, or is no such number.
    """
    value = settings.get(name)
    if value is None:
        value = default
    if type(value) is not int or not 0 < value < _MAX_WHOLE:
        raise ValueError(f"{source}: {name} is {_show(value)}: it must be a positive whole number")
    return value


def number(settings: Mapping[str, Any], name: str, default: float, *, source: str) -> float:
    """Return a number; the default where it is missing or null.

    Raises:
        ValueError: It is no finite number of 0 or more.
    """
    value = settings.get(name)
    if value is None:
        value = default
    if type(value) not in (int, float) or not 0 <= value < float("inf"):
        raise ValueError(f"{source}: {name} is {_show(value)}: it must be a number of 0 or more")
    return float(value)


def switch(settings: Mapping[str, Any], name: str, *, source: str) -> bool:
    """Return a truth value; false where it is missing.

    Raises:
        ValueError: It is something else.
    """
    value = settings.get(name, False)
    if type(value) is not bool:
        raise ValueError(f"{source}: {name} is {_show(value)}: it must be true or false")
    return value


def add_given(
    settings: Mapping[str, Any],
    given: Mapping[str, int],
    names: Mapping[str, str],
    *,
    source: str,
) -> dict[str, Any]:
    """Return the settings with sizes that whoever opens the file adds.

    Args:
        settings: By the system's own names.
        given: By the names in `ModelConfig`.
        names: Name in `ModelConfig` -> the system's own.
        source: For messages.

    Raises:
        ValueError: The system has no such size, or the file says another.
    """
    for name, value in given.items():
        if name not in names:
            raise ValueError(f"{name} is {value}: {source} is of a system without it; leave it out")
        said = settings.get(names[name])
        if said not in (None, value):
            raise ValueError(f"{name} is {value}: {source} says {_show(said)}; leave it out")
    return {**settings, **{names[name]: value for name, value in given.items()}}


def _show(value: object) -> str:
    return "missing" if value is None else ascii(value)[:60]
