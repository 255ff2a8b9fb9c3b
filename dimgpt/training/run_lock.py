"""One trainer at a time in a run's folder.

The system holds the lock for the process, and lets go of it when the process ends in whatever way:
a killed run blocks nobody.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is made if it is missing.

    Raises:
        RuntimeError: Someone else holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise RuntimeError(
            f"another training is running in {folder}: wait until it ends, stop it, or train "
            "under another name"
        ) from None
    try:
        yield
    finally:
        lock.release()
