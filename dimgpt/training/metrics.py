"""What a run shows of itself: moving averages, and a history that is a file of JSON lines."""

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dimgpt.files import replace_file

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class MovingAverages:
    """Exponential averages of the values that are shown; the first value counts as it is."""

    decay: float
    values: dict[str, float] = field(default_factory=dict)

    def update(self, **measured: float) -> None:
        """Let each measured value move its average by 1 - decay of the difference."""
        for name, value in measured.items():
            old = self.values.get(name, value)
            self.values[name] = self.decay * old + (1 - self.decay) * value


class History:
    """`history.jsonl`: one record a line, appended as a run goes.

    A record has a `kind` (`start`, `step`, `validation`, `sample`, `notice`), a `step`, and its
    values. What a killed run wrote after its last checkpoint is dropped on resume, so that no step
    stands twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[bytes] = []

    def append(self, record: dict[str, Any]) -> None:
        """Add one record at the end of the file; on a full disk it waits for the next one."""
        line = json.dumps(record, ensure_ascii=False) + "\n"
        self._waiting.append(line.encode())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _append_whole(self.path, b"".join(self._waiting))
        except OSError as error:
            if len(self._waiting) == 1:
                log.warning(
                    "%s cannot be written (%s): its records wait in memory; free some space",
                    self.path,
                    error,
                )
        else:
            self._waiting.clear()

    def rewind(self, step: int) -> None:
        """Drop the records after `step`."""
        self._waiting.clear()
        if self.path.exists():
            kept = [record for record in read_history(self.path) if record["step"] <= step]
            lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept)
            replace_file(self.path, lines.encode())


def _append_whole(path: Path, content: bytes) -> None:
    """Append to a file, or leave it as it was: half a line would hide all that follow it."""
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            written = 0
            while written < len(content):
                written += file.write(content[written:])
        except OSError:
            file.truncate(size)
            raise


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read the records of a run, running or ended; a last line cut by a crash is passed over."""
    records = []
    for line in path.read_bytes().split(b"\n"):  # as bytes: a crash may cut a character, too
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


@dataclass(kw_only=True, slots=True)
class Stopwatch:
    """Seconds of work over all the sittings of a run."""

    before: float = 0.0
    """Seconds of the earlier sittings."""
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds until now."""
        return self.before + time.perf_counter() - self.started
