"""The checks that settings share: each names the field, its value, and the rule."""

from typing import Any


def require_positive(config: Any, name: str) -> None:
    """Refuse what is not a positive number."""
    value = getattr(config, name)
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value}: it must be a positive number")


def require_not_negative(config: Any, name: str) -> None:
    """Refuse what is not 0 or a positive number."""
    value = getattr(config, name)
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} is {value}: it must be 0 or more")


def require_ratio(config: Any, name: str) -> None:
    """Refuse what does not lie in 0..1."""
    value = getattr(config, name)
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}: it must lie in 0..1")


def require_choice(config: Any, name: str, choices: tuple[str, ...]) -> None:
    """Refuse what is not one of the choices."""
    value = getattr(config, name)
    if value not in choices:
        raise ValueError(f"{name} is {value!r}: it must be one of {', '.join(choices)}")


def is_file_name(value: str) -> bool:
    """Say whether a file or folder can have this name on any system, and is not hidden."""
    is_plain = not any(sign in value for sign in '/\\:*?"<>|')
    return bool(value) and is_plain and not value.startswith(".")


def require_file_name(config: Any, name: str) -> None:
    """Refuse what cannot name a folder."""
    value = getattr(config, name)
    if not is_file_name(value):
        raise ValueError(f"{name} is {value!r}: it names a folder; use letters, digits, - and _")
