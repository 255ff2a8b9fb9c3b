"""A file that arrives in pieces, and gets its name when it is whole.

The pieces stay on the disk under a name with the hash of the whole, so that a later process goes on
with them and nothing is continued that belongs to another content. Where the bytes come from is
`hub.py`'s matter.
"""

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

from dimgpt.files import sync_folder

_SHA256_LENGTH = 64
_NAME_LENGTH = 16  # enough to tell contents apart; file systems allow 255 bytes in a name
_SPARE_BYTES = 64 * 2**20


class DamagedError(Exception):
    """Bytes that are not those of the file; asking for them again may help."""


def is_whole(path: Path, *, size: int, digest: str) -> bool:
    """Tell whether a file is there with its size and hash, as `PartialFile` takes them."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    state = _new_state(size, digest)
    _feed(state, path)
    return bool(state.hexdigest() == digest)


def require_space(folder: Path, num_bytes: int, *, what: str) -> None:
    """Raise an `OSError` if the disk of an existing folder has no room for so much more."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes + _SPARE_BYTES:
        raise OSError(
            f"{what} needs {num_bytes / 1e9:.2f} GB more and the disk of {folder} has "
            f"{free / 1e9:.2f} GB; make room and run again"
        )


class PartialFile:
    """What has arrived of a file so far: `<name>.<start of the digest>.part` beside the target.

    Args:
        target: The final name; its folder exists. Pieces of other contents for it are removed.
        size: Bytes of the whole.
        digest: 64 digits: SHA-256 of the whole; 40 digits: its SHA-1 as a git blob.

    Raises:
        OSError: The disk has no room for the rest.
    """

    def __init__(self, target: Path, *, size: int, digest: str) -> None:
        self.target, self.size, self.digest = target, size, digest
        self.path = target.with_name(f"{target.name}.{digest[:_NAME_LENGTH]}.part")
        pattern = rf"{re.escape(target.name)}\.[0-9a-f]{{{_NAME_LENGTH}}}\.part"
        for other in target.parent.iterdir():
            if re.fullmatch(pattern, other.name) and other != self.path:
                other.unlink()
        self.num_bytes = 0
        self._state = _new_state(size, digest)
        present = self.path.stat().st_size if self.path.exists() else 0
        require_space(target.parent, size - present, what=target.name)
        self._output = self.path.open("ab", buffering=0)
        if present > size:
            self.clear()
        else:
            _feed(self._state, self.path)
            self.num_bytes = present

    def append(self, chunk: bytes) -> None:
        """Add what has arrived.

        Raises:
            DamagedError: It is more than the file has; all is thrown away.
            OSError: The disk is full.
        """
        if self.num_bytes + len(chunk) > self.size:
            self.clear()
            raise DamagedError(f"more than {self.size:,} bytes")
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[self._output.write(rest) :]
        except OSError as error:
            raise OSError(
                f"{self.path} cannot be written ({error.strerror}); make room and run again"
            ) from error
        self._state.update(chunk)
        self.num_bytes += len(chunk)

    def clear(self) -> None:
        """Throw away what has arrived."""
        self._output.truncate(0)
        self._state, self.num_bytes = _new_state(self.size, self.digest), 0

    def check(self) -> None:
        """Complain if the file is not whole.

        Raises:
            DamagedError: Bytes are missing; or they are wrong, and all are thrown away.
        """
        if self.num_bytes < self.size:
            raise DamagedError(f"cut after {self.num_bytes:,} of {self.size:,} bytes")
        if self._state.hexdigest() != self.digest:
            self.clear()
            raise DamagedError("the hash of what has arrived is not the right one")

    def finish(self) -> None:
        """Give the file its name, for good."""
        self.check()
        self.close()
        sync_folder(self.path)
        self.path.replace(self.target)
        sync_folder(self.target.parent)

    def close(self) -> None:
        """Let go of the file; what has arrived stays."""
        self._output.close()


def _new_state(size: int, digest: str) -> Any:
    if len(digest) == _SHA256_LENGTH:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def _feed(state: Any, path: Path) -> None:
    with path.open("rb") as content:
        while chunk := content.read(2**20):
            state.update(chunk)
