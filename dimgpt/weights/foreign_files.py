"""Reads untrusted files, and describes a file in a few words.

`describe` is used in messages that refuse a file. It reads the first bytes and lists of names; it
opens no pickle and decompresses nothing. A setting is accepted only if its type and range are
right.
"""

import contextlib
import itertools
import json
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

_PAGE = 4096
_MAX_JSON = 2**26  # bytes
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
    with contextlib.suppress(SafetensorError, OSError, ValueError), safe_open(path, "pt") as file:
        return f"a safetensors file with tensors {list_names(file.keys())}"
    if text.startswith((b"{", b"[")):
        return "a JSON file"
    with contextlib.suppress(UnicodeDecodeError):
        start[:-4].decode()  # the last character may be cut
        if not set(start) & set(range(9)):
            return "a text file"
    return f"a file of {path.stat().st_size:,} unknown bytes"


def list_names(names: Collection[str], *, limit: int = 4) -> str:
    """Return the first `limit` names as one line, followed by the number of the others.

    Names are cut to 80 characters, and unprintable characters become `?`.

    >>> list_names(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    shown = [
        "".join(sign if sign.isprintable() else "?" for sign in name[:80])
        for name in itertools.islice(names, limit)
    ]
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(shown) + more


def one_line(error: BaseException) -> str:
    """Return type and text of an error, shortened, for a message of one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of moderate size.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: copy the complete folder from its source")
    try:
        content = json.loads(path.read_bytes()) if path.stat().st_size <= _MAX_JSON else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object: copy it from its source again")
    return content


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of an existing safetensors file; anything else raises a `ValueError`."""
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"{path} is no safetensors file and cannot be read ({describe(path)}; "
            f"{one_line(error)}): copy the complete folder from its source again"
        ) from None


def read_setting(settings: Mapping[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """Return a setting of a foreign file; the default if it is missing or null.

    Args:
        settings: By the file's own names.
        name: Key in `settings`.
        kind: `int` for a positive whole number, `float` for a number of 0 or more, or `bool`.
        default: `None` if the setting is required: a `ValueError` if it is missing.
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
