"""Files of other programs: what one is, in a few words, and what its settings say.

`describe` serves the messages that refuse a file. It looks at the first bytes and at lists of
names; it opens no pickle and unpacks nothing. Settings are taken only if they have the type and the
range that they should have; what they mean is not known here.
"""

import json
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

_PAGE = 4096
_MAX_JSON = 2**26  # bytes
_MAX_HEADER = 2**26  # of a safetensors file; they stay below 100 MB
_KINDS: dict[type, tuple[tuple[type, ...], int, float, str]] = {
    int: ((int,), 1, 2**31, "a positive whole number"),
    float: ((int, float), 0, 1e300, "a number of 0 or more"),
    bool: ((bool,), 0, 2, "true or false"),
}
_BEGINNINGS = {
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer, which only stands for the file",
    **{bytes([0x80, protocol]): "a pickle" for protocol in range(2, 6)},
    b"%PDF": "a PDF",
}


def describe(path: Path) -> str:
    """Say what is at a path.

    >>> describe(Path("no-such-file"))
    'nothing'
    """
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        return f"a folder with {list_names(names)}" if names else "an empty folder"
    if not path.is_file():
        return "nothing"
    with path.open("rb") as file:
        start = file.read(_PAGE)
    if not start:
        return "an empty file"
    for beginning, description in _BEGINNINGS.items():
        if start.startswith(beginning):
            return description
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if zipfile.is_zipfile(path):
        return _describe_zip(path)
    if (tensors := _names_in_safetensors(path)) is not None:
        return f"a safetensors file with tensors {list_names(tensors)}"
    if text.startswith((b"{", b"[")):
        return "a JSON file"
    return "a text file" if _is_text(start) else f"a file of {path.stat().st_size:,} unknown bytes"


def list_names(names: Collection[str], *, limit: int = 4) -> str:
    """Name a few of many, in one line whatever the names hold.

    >>> list_names(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    shown = [_printable(name) for _, name in zip(range(limit), names, strict=False)]
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(shown) + more


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of moderate size.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: copy the whole folder from its source")
    try:
        content = json.loads(path.read_bytes()) if path.stat().st_size <= _MAX_JSON else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object: copy it from its source again")
    return content


def read_setting(settings: Mapping[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """Return a setting of a foreign file; the default where it is missing or null.

    Args:
        settings: By the file's own names.
        name: Key in `settings`.
        kind: `int` for a positive whole number, `float` for a number of 0 or more, or `bool`.
        default: `None` if the setting is required.

    Raises:
        ValueError: It is missing without a default, or of another kind.
    """
    types, smallest, end, rule = _KINDS[kind]
    value = default if settings.get(name) is None else settings[name]
    if type(value) not in types or not smallest <= value < end:
        shown = "missing" if value is None else ascii(value)[:60]
        raise ValueError(f"{name} is {shown}: it must be {rule}")
    return kind(value)


def _describe_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        return "a damaged zip archive"
    if any(name.endswith("/data.pkl") for name in names):
        return "a PyTorch file"
    return f"a zip archive with {list_names(names)}" if names else "an empty zip archive"


def _names_in_safetensors(path: Path) -> list[str] | None:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_MAX_HEADER, path.stat().st_size - 8):
            return None
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return None
    return [name for name in header if name != "__metadata__"] if isinstance(header, dict) else None


def _is_text(start: bytes) -> bool:
    try:
        start[:-4].decode("utf-8")  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return not set(start) & set(range(9))


def _printable(name: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in name[:80])
