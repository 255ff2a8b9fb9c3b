"""Progress bars: one for the preparation of a source, one for a training run.

They are plain text on standard error, so they look the same in a terminal and in every notebook. In
a log, a bar is a line every 30 seconds.
"""

import re
import sys
import time
from contextlib import AbstractContextManager
from typing import Any, TextIO

from tqdm import tqdm

from dimgpt.data.preparing.parts import Progress

_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
_FORMAT_WITHOUT_TOTAL = "{desc}: {elapsed}{postfix}"


class LogLines:
    """A stream for logs: writes a line that redraws itself at most once in 30 seconds."""

    def __init__(self, stream: TextIO, *, seconds: float = 30.0) -> None:
        self._stream, self._seconds = stream, seconds
        self._line, self._is_redrawn, self._next = "", False, 0.0

    def write(self, text: str) -> int:
        """Collect text, and write each line when it ends.

        A carriage return discards the line so far and begins it again.
        """
        for part in re.split("([\r\n])", text):
            if part == "\n":
                self._write_line()
            elif part == "\r":
                self._line, self._is_redrawn = "", True
            else:
                self._line += part
        return len(text)

    def flush(self) -> None:
        """Write the current state of a redrawn line, if 30 seconds have passed."""
        if self._is_redrawn and time.monotonic() >= self._next:
            self._write_line()

    def _write_line(self) -> None:
        if self._line.strip():
            self._stream.write(self._line.rstrip() + "\n")
            self._stream.flush()
            self._next = time.monotonic() + self._seconds
        self._line, self._is_redrawn = "", False


def progress_stream() -> Any:
    """Return standard error, wrapped in `LogLines` if it is neither a terminal nor a notebook."""
    is_in_notebook = type(sys.stderr).__module__ == "ipykernel.iostream"
    is_watched = sys.stderr.isatty() or is_in_notebook
    return sys.stderr if is_watched else LogLines(sys.stderr)


class PreparationBar(AbstractContextManager["PreparationBar"]):
    """Shows the progress of one source after the other; a context manager."""

    def __init__(self) -> None:
        self._source: str | None = None
        self._bar: Any = None
        self._first, self._start = 0, 0.0

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, progress: Progress) -> None:
        """Show a record; another source begins a new line."""
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
        """Keep the bar as it is, and begin a new line."""
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
            file=progress_stream(),
        )


class TrainingBar:
    """Observer that moves a bar with every step, and writes samples above it.

    The bar appears when the run starts; `close` ends its line if the run stops early.
    """

    def __init__(self, *, description: str) -> None:
        self._description = description
        self._bar: Any = None
        self._validation = ""

    def __call__(self, record: dict[str, Any]) -> None:
        """Show a record of the history."""
        if record["kind"] == "start":
            self._start(record)
        elif record["kind"] == "sample":
            self._write(f"step {record['step']:,}: {record['text']}")
        elif record["kind"] == "validation":
            self._validation = _validation(record)
        elif record["kind"] == "step":
            self._bar.set_postfix_str(_values(record) + self._validation, refresh=False)
            self._bar.update(record["step"] - self._bar.n)
            if self._bar.n >= self._bar.total:
                self.close()

    def close(self) -> None:
        """Keep the bar as it is, and begin a new line."""
        if self._bar is not None:
            self._bar.close()

    def _start(self, record: dict[str, Any]) -> None:
        step, last = record["step"], record["max_steps"]
        if step >= last:
            tqdm.write(f"the run is at step {step:,} of {last:,} already: nothing is left to train")
            return
        # `initial`: the time left counts this sitting only.
        self._bar = tqdm(
            desc=self._description,
            unit="step",
            dynamic_ncols=True,
            initial=step,
            total=last,
            file=progress_stream(),
        )
        if step > 0:
            changes = "; ".join(f"{name} {change}" for name, change in record["changes"].items())
            self._write(f"resuming at step {step:,} {changes}".rstrip())
        if "trained" in record:
            self._write(f"trains {record['trained']}")

    def _write(self, line: str) -> None:
        """Write a line above the bar; where tqdm is disabled, as by `--quiet`, write nothing."""
        if not self._bar.disable:
            self._bar.write(line)


def _values(record: dict[str, Any]) -> str:
    seen = f"epoch {record['epochs']:.4f}, " if "epochs" in record else ""
    seen += f"{record['tokens']:,} tokens"
    skipped = f", {record['num_skipped']} skipped" if record.get("num_skipped") else ""
    if record["loss_average"] is None:  # no update has counted yet
        return f"{seen}{skipped}"
    return (
        f"{seen}, loss {record['loss_average']:.3f}, accuracy {record['accuracy_average']:.1%}, "
        f"rate {record['learning_rate']:.1e}, {record['tokens_per_second']:,.0f} tokens/s, "
        f"MFU {record['mfu']:.0%}{skipped}"
    )


def _validation(record: dict[str, Any]) -> str:
    shown = f", validation {record['loss']:.3f}"
    if "accuracy" in record:
        shown += f", {record['accuracy']:.1%}"
    if "bits_per_byte" in record:
        shown += f", {record['bits_per_byte']:.3f} bits/byte"
    return shown
