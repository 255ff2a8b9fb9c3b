"""The counters of a run, and the table that is shown at its end."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from dimgpt.config import TrainingConfig


@dataclass(kw_only=True, slots=True)
class RunState:
    """The counters of a run, as a checkpoint keeps them in `state.json`."""

    step: int = 0
    """Optimizer steps, skipped ones included."""
    tokens: int = 0
    """Tokens trained on."""
    seconds: float = 0.0
    """Training time, summed over all sessions."""
    num_skipped: int = 0
    """Steps whose update was skipped."""
    num_bad_in_a_row: int = 0
    """Non-finite steps since the last finite one."""
    looked_around_at: int = 0
    """Newest step whose validation and sample are done; a stop can come before them."""
    lowest_losses: list[float] = field(default_factory=list)
    """Validation losses of the checkpoints `best-...`, lowest first."""
    num_validations_since_best: int = 0
    micro_batch_rows: int | None = None
    """Rows per micro-batch after memory ran out; `None` if it never did."""
    averages: dict[str, float] = field(default_factory=dict)
    """Moving averages by name."""
    last_validation: dict[str, float] = field(default_factory=dict)

    @property
    def best_loss(self) -> float:
        """Lowest validation loss; infinite before the first validation."""
        return self.lowest_losses[0] if self.lowest_losses else math.inf

    def add_validation(self, measured: dict[str, float], *, keep: int = 1) -> bool:
        """Remember a validation; return whether its loss is among the `keep` lowest so far."""
        self.last_validation, loss = measured, measured["loss"]
        is_lowest = loss < self.best_loss
        self.num_validations_since_best = 0 if is_lowest else self.num_validations_since_best + 1
        lowest = self.lowest_losses[:keep]
        is_kept = loss < (lowest[-1] if len(lowest) == keep else math.inf)
        self.lowest_losses = sorted([*lowest, loss])[:keep] if is_kept else lowest
        return is_kept

    def why_over(self, config: TrainingConfig) -> str | None:
        """Return "finished" or "out of patience" if the run is over, else `None`."""
        if self.step >= config.max_steps:
            return "finished"
        return "out of patience" if self.is_out_of_patience(config.patience) else None

    def is_out_of_patience(self, patience: int | None) -> bool:
        """Return whether the last `patience` validations have brought no lower loss."""
        return patience is not None and self.num_validations_since_best >= patience

    def to_json(self) -> dict[str, Any]:
        """Return a copy as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RunState":
        """Take the fields that are present: older checkpoints lack some."""
        names = {field.name for field in dataclasses.fields(cls)}
        state = cls(**{name: value for name, value in values.items() if name in names})
        if values.get("best_loss") is not None:  # older checkpoints keep only this one
            state.lowest_losses = [values["best_loss"]]
        state.looked_around_at = values.get("looked_around_at", state.step)
        return state


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSummary:
    """The cost and the results of a run."""

    step: int
    """Optimizer steps, over all sessions."""
    tokens: int
    """Tokens trained on."""
    flops: float
    """Floating-point operations, forward and backward."""
    seconds: float
    """Training time, summed over all sessions."""
    loss: float
    """Moving average of the training loss, in nats a token."""
    accuracy: float
    """Moving average of the training accuracy, in 0..1."""
    validation_loss: float | None
    """Of the last validation, in nats a token."""
    validation_accuracy: float | None
    """Of the last validation, in 0..1."""
    bits_per_byte: float | None
    """Of the last validation, per UTF-8 byte of cleaned text."""
    num_skipped: int = 0
    """Steps whose update was skipped: not finite, or a spike."""
    trained: str = ""
    """How many of the parameters adapters train; empty without adapters."""
    is_finished: bool
    """False when the run was interrupted before its last step."""

    def rows(self) -> dict[str, str]:
        """Return the rows of the table that is shown."""
        hours, rest = divmod(round(self.seconds), 3600)
        rows = {
            "Tokens": f"{self.tokens:,}",
            "Steps": f"{self.step:,}" + ("" if self.is_finished else " (interrupted)"),
            "FLOPs": f"{self.flops:.2e}",
            "Duration": f"{hours} h {rest // 60:02} min {rest % 60:02} s",
            "Final loss": f"{self.loss:.3f}",
            "Final accuracy": f"{self.accuracy:.1%}",
        }
        if self.validation_loss is not None:
            rows["Validation loss"] = f"{self.validation_loss:.3f}"
            rows["Validation accuracy"] = f"{self.validation_accuracy:.1%}"
        if self.bits_per_byte is not None:
            rows["Validation bits per byte"] = f"{self.bits_per_byte:.3f}"
        if self.trained:
            rows["Trained parameters"] = self.trained
        if self.num_skipped > 0:
            rows["Skipped updates"] = f"{self.num_skipped:,}"
        return rows
