"""Atomic writes: after a crash, a file or a folder is the old one or the new one.

The content is written under a temporary name, flushed to the disk, and renamed at the end.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

# Temporary folders have these endings; they may be deleted.
UNFINISHED, _OLD = ".dimgpt-new", ".dimgpt-old"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replace_file(path: Path, content: bytes) -> None:
    """Write a small file atomically; a reader sees the old content or the new.

    Several processes may write the same file at the same time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path, suffix=f".{os.getpid()}.tmp") as file:
        file.write(content)


@contextlib.contextmanager
def new_file(path: Path, *, suffix: str = ".partial") -> Iterator[BinaryIO]:
    """Yield a file that replaces `path` if the block succeeds; otherwise it is removed.

    After a crash it stays beside `path`, with the suffix, until it is written again.
    """
    temporary = path.with_name(path.name + suffix)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def unfinished(folder: Path) -> Path:
    """Return the temporary folder of `new_folder`."""
    return folder.with_name(folder.name + UNFINISHED)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder` that replaces it if the block succeeds.

    An older folder of that name stays until then, see `move_folder`.
    """
    temporary = unfinished(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    restore_folder(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            sync_folder(path)
        move_folder(temporary, folder)
    finally:
        restore_folder(folder)
        shutil.rmtree(temporary, ignore_errors=True)


def move_folder(source: Path, folder: Path) -> None:
    """Rename a folder beside `folder` to its name, replacing an older one.

    The older folder is first renamed to `<name>.dimgpt-old`. If a crash leaves it there,
    `restore_folder` restores it. The files must be on the disk already.
    """
    old = folder.with_name(folder.name + _OLD)
    sync_folder(source)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    source.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    sync_folder(folder.parent)


def restore_folder(folder: Path) -> None:
    """Restore the older folder after a crash inside `move_folder`.

    If the new folder is in place already, delete the older one.
    """
    old = folder.with_name(folder.name + _OLD)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        old.rename(folder)


@contextlib.contextmanager
def lock_file(path: Path, *, refusal: str) -> Iterator[None]:
    """Hold a lock that only one process can have; the system releases it when the process ends.

    The file is not deleted.

    Raises:
        RuntimeError: Another process holds it; the message is `refusal`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(path, blocking=False).acquire()
    except Timeout:
        raise RuntimeError(refusal) from None
    with lock:
        yield


def sync_folder(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk; not possible for folders on Windows."""
    if os.name == "nt" and path.is_dir():
        return
    # Windows flushes only files that are open for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
