"""One trainer at a time in a run's folder."""

from contextlib import AbstractContextManager
from pathlib import Path

from dimgpt.files import lock_file


def lock_run(folder: Path) -> AbstractContextManager[None]:
    """Hold the lock of a run's folder, which is made if it is missing.

    Raises:
        RuntimeError: Someone else holds it.
    """
    return lock_file(
        folder / "lock",
        refusal=f"another training is running in {folder}: wait until it ends, stop it, or train "
        "under another name",
    )
