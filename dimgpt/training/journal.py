"""Records what a run reports, in `history.jsonl` and for observers."""

import contextlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dimgpt.files import replace_file
from dimgpt.runtime import Runtime, peak_flops
from dimgpt.training.guard import Verdict
from dimgpt.training.run_state import RunState
from dimgpt.training.step import StepResult

Record = dict[str, Any]
Observer = Callable[[Record], None]

log = logging.getLogger(__name__)


def read_history(path: Path) -> list[Record]:
    """Read the records of a running or ended run, up to the first damaged line."""
    records = []
    for line in path.read_bytes().split(b"\n"):  # bytes: a crash may cut a character
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def _append_whole(path: Path, content: bytes) -> None:
    """Append to a file, or leave it unchanged: `read_history` stops at a partial line."""
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            written = 0
            while written < len(content):
                written += file.write(content[written:])
        except OSError:
            file.truncate(size)
            raise


class Journal:
    """`history.jsonl`: one record a line, appended during a run and passed to observers.

    A record has a `kind` (`start`, `step`, `validation`, `sample`, `notice`, `end`), a `step`, and
    its values, among them moving averages and the speed.

    Args:
        observers: Called with every record.
        flops_per_token: Forward and backward; needed for the model FLOPs utilization (MFU).
        decay: Decay of the moving averages.
        num_train_tokens: Tokens of the training split; needed for `epochs`.
    """

    def __init__(
        self,
        path: Path,
        observers: Sequence[Observer],
        *,
        flops_per_token: float,
        runtime: Runtime,
        decay: float,
        num_train_tokens: int | None = None,
    ) -> None:
        self.path, self.observers = path, list(observers)
        self.trackers: Sequence[Observer] = ()
        self.flops_per_token, self.runtime, self.decay = flops_per_token, runtime, decay
        self.num_train_tokens = num_train_tokens
        self._waiting: list[bytes] = []
        self._lost = ""
        self._continue_clock(RunState())

    def follow(self, state: RunState) -> None:
        """Report on this state from now on, and drop the records of later steps.

        So no step is recorded twice after a run resumes. Averages and duration continue.
        """
        self._continue_clock(state)
        self._waiting.clear()
        if self.runtime.is_first and self.path.exists():
            records = read_history(self.path)
            kept = [record for record in records if record["step"] <= state.step]
            if (
                num_lost := max((record["step"] for record in records), default=0) - state.step
            ) > 0:
                minutes = max(0.0, records[-1].get("seconds", 0.0) - state.seconds) / 60
                self._lost = (
                    f"the run ended without saving: {num_lost} steps ({minutes:.0f} minutes) after "
                    "the checkpoint are repeated"
                )
            lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept)
            replace_file(self.path, lines.encode())

    def _continue_clock(self, state: RunState) -> None:
        self.state = state
        self._started = time.perf_counter() - state.seconds
        self.restart_clock()

    @property
    def seconds(self) -> float:
        """Training time until now, summed over all sessions of the run."""
        return time.perf_counter() - self._started

    def restart_clock(self) -> None:
        """Measure the speed of the next step from now on."""
        self._step_began = self.seconds

    def start(self, *, max_steps: int, changes: dict[str, str], trained: str = "") -> None:
        """Record that a session begins; `trained` says how many parameters adapters train."""
        self._peak_flops = peak_flops(self.runtime) * self.runtime.num_processes
        more = {"trained": trained} if trained else {}
        self.emit("start", max_steps=max_steps, changes=changes, **more)
        if self._lost:
            self.notice(self._lost)
        self.restart_clock()

    @contextlib.contextmanager
    def recording_failure(self) -> Iterator[None]:
        """Record an error that ends the run."""
        try:
            yield
        except Exception as error:
            self.emit("end", reason=f"{type(error).__name__}: {error}")
            raise

    def emit(self, kind: str, **values: Any) -> None:
        """Append a record to the history and call the observers, in the first process only."""
        self.state.seconds = self.seconds
        if not self.runtime.is_first:
            return
        tokens, whole = self.state.tokens, self.num_train_tokens
        record = {
            "kind": kind,
            "step": self.state.step,
            "tokens": tokens,
            **({"epochs": tokens / whole} if whole else {}),
            "seconds": round(self.state.seconds, 3),
            **values,
        }
        self.append(record)
        for observer in [*self.observers, *self.trackers]:
            observer(record)

    def append(self, record: Record) -> None:
        """Append a record to the file; on a full disk, keep it in memory until the next one."""
        self._waiting.append((json.dumps(record, ensure_ascii=False) + "\n").encode())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _append_whole(self.path, b"".join(self._waiting))
        except OSError as error:
            if len(self._waiting) == 1:
                log.warning(
                    "%s cannot be written (%s): its records stay in memory; free some space",
                    self.path,
                    error,
                )
        else:
            self._waiting.clear()

    def notice(self, text: str) -> None:
        """Record and log a message for the user."""
        log.warning("step %d: %s", self.state.step, text)
        self.emit("notice", text=text)

    def record_step(self, result: StepResult) -> None:
        """Record a step; a skipped one changes no average of loss or accuracy."""
        speed = result.num_tokens / max(self.seconds - self._step_began, 1e-9)
        self.restart_clock()
        is_skipped = result.verdict != Verdict.FINE
        measured = {"tokens_per_second": speed}
        if not is_skipped:
            measured |= {"loss": result.loss, "accuracy": result.accuracy}
        averages = self.state.averages
        for name, value in measured.items():  # an average starts at its first value
            old = averages.get(name, value)
            averages[name] = self.decay * old + (1 - self.decay) * value
        self.emit(
            "step",
            loss=_finite(result.loss),
            accuracy=_finite(result.accuracy),
            grad_norm=_finite(result.grad_norm),
            learning_rate=result.learning_rate,
            loss_average=averages.get("loss"),
            accuracy_average=averages.get("accuracy"),
            tokens_per_second=averages["tokens_per_second"],
            mfu=averages["tokens_per_second"] * self.flops_per_token / self._peak_flops,
            num_skipped=self.state.num_skipped,
            **({"skipped": result.verdict.name.lower().replace("_", " ")} if is_skipped else {}),
        )


def _finite(value: float) -> float | None:
    """Return a finite value unchanged; `None` for others, which JSON cannot hold."""
    return value if math.isfinite(value) else None
