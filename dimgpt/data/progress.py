"""How far the preparation of a source is, and a line that shows it.

One bar a source: how much of its files is read, documents, megabytes of text a second, time left,
disk left. Plain text on standard error, as the bar of a training run.
"""

import time
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
_FORMAT_WITHOUT_TOTAL = "{desc}: {elapsed}{postfix}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far the preparation of a source is."""

    source: str
    """Its name."""
    num_documents: int
    """Documents written so far, those of finished parts included."""
    num_characters: int
    """Characters of their cleaned text."""
    text_bytes: int
    """Bytes of text that were read so far."""
    file_bytes: int
    """Bytes of its files, compressed as they are, that were read so far."""
    total_file_bytes: int
    """Bytes of all its files; 0 if that is not known."""
    disk_free: int
    """Bytes left on the disk."""


class PreparationBar:
    """Shows the progress of one source after the other; a context manager."""

    def __init__(self) -> None:
        self._source: str | None = None
        self._bar: Any = None
        self._first = 0
        self._start = 0.0

    def __enter__(self) -> "PreparationBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, progress: Progress) -> None:
        """Show a record; one of another source begins a new line."""
        if progress.source != self._source:
            self._begin(progress)
        seconds = max(time.monotonic() - self._start, 1e-3)
        speed = (progress.text_bytes - self._first) / seconds / 1e6
        self._bar.set_postfix_str(
            f"{progress.num_documents:,} documents, {speed:.1f} MB/s, "
            f"{progress.disk_free / 1e9:,.0f} GB free",
            refresh=False,
        )
        self._bar.update(progress.file_bytes - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it is, and the line below it to others."""
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()
        self._bar = self._source = None

    def _begin(self, progress: Progress) -> None:
        self.close()
        self._source = progress.source
        self._first, self._start = progress.text_bytes, time.monotonic()
        # `initial`: the time left counts this sitting only.
        self._bar = tqdm(
            desc=progress.source,
            total=progress.total_file_bytes or None,
            initial=progress.file_bytes,
            bar_format=_FORMAT if progress.total_file_bytes else _FORMAT_WITHOUT_TOTAL,
            dynamic_ncols=True,
        )
