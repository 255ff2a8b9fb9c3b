"""A download in pieces, which is renamed when it is complete.

The partial file's name contains the start of the file's hash. So a later process resumes it, and
never appends to pieces of another content. `hub.py` sends the bytes.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dimgpt.files import sync_folder

_NAME_LENGTH = 16  # enough to distinguish contents; file systems allow 255 bytes in a name
_SPARE_BYTES = 64 * 2**20


class DamagedError(Exception):
    """The received bytes are not those of the file; another request may help."""


def is_whole(path: Path, *, size: int, digest: str) -> bool:
    """Return whether a file exists with this size and hash.

    Args:
        path: The file.
        size: Its bytes.
        digest: 64 digits: SHA-256 of the content; 40 digits: SHA-1 of the content as a git blob.
    """
    if not path.is_file() or path.stat().st_size != size:
        return False
    state: Any = hashlib.sha256()
    if len(digest) != 64:
        state = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as content:
        return bool(hashlib.file_digest(content, lambda: state).hexdigest() == digest)


def require_space(folder: Path, num_bytes: int, *, what: str) -> None:
    """Raise an `OSError` if a disk has fewer free bytes; the folder on it need not exist yet."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < num_bytes + _SPARE_BYTES:
        raise OSError(
            f"{what} needs {num_bytes / 1e9:.2f} GB more and the disk of {folder} has "
            f"{free / 1e9:.2f} GB; make room and run again"
        )


def partial_path(target: Path, digest: str) -> Path:
    """Return the path of a partial file; delete partial files of other contents for this name."""
    path = target.with_name(f"{target.name}.{digest[:_NAME_LENGTH]}.part")
    pattern = rf"{re.escape(target.name)}\.[0-9a-f]{{{_NAME_LENGTH}}}\.part"
    for other in target.parent.iterdir():
        if re.fullmatch(pattern, other.name) and other != path:
            other.unlink()
    return path


def append(path: Path, chunks: Iterable[bytes]) -> Iterator[int]:
    """Append bytes to a file as they arrive; yield its size after each chunk.

    Raises:
        OSError: The disk is full. Bytes written before stay.
    """
    with path.open("ab", buffering=0) as output:
        for chunk in chunks:
            rest = memoryview(chunk)
            try:
                while rest:
                    rest = rest[output.write(rest) :]  # without a buffer, a write may be partial
            except OSError as error:
                raise OSError(
                    f"{path} cannot be written ({error.strerror}); make room and run again"
                ) from error
            yield output.tell()


def finish(path: Path, target: Path, *, size: int, digest: str) -> None:
    """Rename a partial file to its final name, if it is complete and correct.

    The hash is computed from the file on the disk, at about a second per GB.

    Raises:
        DamagedError: Bytes are missing; or they are wrong, and all of them are deleted.
    """
    num_bytes = path.stat().st_size
    if num_bytes < size:
        raise DamagedError(f"cut after {num_bytes:,} of {size:,} bytes")
    if not is_whole(path, size=size, digest=digest):
        os.truncate(path, 0)
        raise DamagedError("size or hash of what has arrived is wrong")
    sync_folder(path)
    path.replace(target)
    sync_folder(target.parent)
