"""What a run shows of itself: moving averages, and a history that is a file of JSON lines."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dimgpt.files import replace_file


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

    A record has a `kind` (`step`, `validation`, `sample`), a `step`, and its values. What a killed
    run wrote after its last checkpoint is dropped on resume, so that no step stands twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, record: dict[str, Any]) -> None:
        """Add one record at the end of the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def rewind(self, step: int) -> None:
        """Drop the records after `step`."""
        if self.path.exists():
            kept = [record for record in read_history(self.path) if record["step"] <= step]
            lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept)
            replace_file(self.path, lines.encode())


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
