"""What a run says of itself while it goes on: records for the history file and for observers."""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from dimgpt.runtime import Runtime, peak_flops
from dimgpt.training.guard import Verdict
from dimgpt.training.metrics import History, MovingAverages, Stopwatch
from dimgpt.training.run_state import RunState
from dimgpt.training.step import StepResult

Record = dict[str, Any]
Observer = Callable[[Record], None]

log = logging.getLogger(__name__)

_REASONS = {
    Verdict.NOT_FINITE: "not finite",
    Verdict.SPIKE: "spike",
    Verdict.OVERFLOW: "float16 overflow",
}


class Journal:
    """Appends records to a history, and shows them to observers.

    Args:
        history: The run's file.
        observers: Called with every record.
        flops_per_token: What the model costs, for the share of the device that is used.
        runtime: The device.
        decay: Of the moving averages.
    """

    def __init__(
        self,
        history: History,
        observers: Sequence[Observer],
        *,
        flops_per_token: float,
        runtime: Runtime,
        decay: float,
    ) -> None:
        self.history, self.observers = history, list(observers)
        self.trackers: list[Observer] = []
        self.flops_per_token, self.runtime = flops_per_token, runtime
        self.averages = MovingAverages(decay=decay)
        self.follow(RunState())

    def follow(self, state: RunState) -> None:
        """Write of this state from now on; its averages and its time go on."""
        self.state = state
        self.averages.values = state.averages
        self.stopwatch = Stopwatch(before=state.seconds)
        self.start_timing()

    def start(self, *, max_steps: int, changes: dict[str, str]) -> None:
        """Say that a sitting begins."""
        self._peak_flops = peak_flops(self.runtime) * self.runtime.num_processes
        self.emit("start", max_steps=max_steps, changes=changes)
        self.start_timing()

    def start_timing(self) -> None:
        """Let the next step begin now."""
        self._timed_from = self.stopwatch.seconds

    def emit(self, kind: str, **values: Any) -> None:
        """Append a record to the history, and show it to the observers; the first process does."""
        self.state.seconds = self.stopwatch.seconds
        if not self.runtime.is_first:
            return
        record = {
            "kind": kind,
            "step": self.state.step,
            "tokens": self.state.tokens,
            "seconds": round(self.state.seconds, 3),
            **values,
        }
        self.history.append(record)
        for observer in [*self.observers, *self.trackers]:
            observer(record)

    def notice(self, text: str) -> None:
        """Say something that a person should know."""
        log.warning("step %d: %s", self.state.step, text)
        self.emit("notice", text=text)

    def record_step(self, result: StepResult) -> None:
        """Write down a step; one whose update was left out moves no average."""
        seconds = self.stopwatch.seconds
        speed = result.num_tokens / max(seconds - self._timed_from, 1e-9)
        self._timed_from = seconds
        self.averages.update(tokens_per_second=speed)
        is_skipped = result.verdict != Verdict.FINE
        if not is_skipped:
            self.averages.update(loss=result.loss, accuracy=result.accuracy)
        averages = self.averages.values
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
            **({"skipped": _REASONS[result.verdict]} if is_skipped else {}),
        )


def _finite(value: float) -> float | None:
    """Return what JSON can hold."""
    return value if math.isfinite(value) else None
