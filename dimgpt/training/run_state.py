"""Where a run is: everything that is neither a tensor nor a setting, and the table of its end."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True, slots=True)
class RunState:
    """The counters of a run, as a checkpoint keeps them in `state.json`."""

    step: int = 0
    """Optimizer steps, skipped ones included."""
    tokens: int = 0
    """Tokens trained on."""
    seconds: float = 0.0
    """Duration of all sittings."""
    num_skipped: int = 0
    """Steps whose update was skipped."""
    num_bad_in_a_row: int = 0
    """Newest steps whose loss or gradient was not finite."""
    looked_around_at: int = 0
    """Newest step after which validation and sample were done; a stop can come before them."""
    best_loss: float = math.inf
    """Lowest validation loss."""
    num_validations_since_best: int = 0
    micro_batch_rows: int | None = None
    """Rows that memory holds at once, once it has run out."""
    averages: dict[str, float] = field(default_factory=dict)
    """Moving averages by name."""
    last_validation: dict[str, float] = field(default_factory=dict)

    def add_validation(self, measured: dict[str, float]) -> bool:
        """Remember a validation; return whether its loss is the lowest so far."""
        self.last_validation = measured
        is_best = measured["loss"] < self.best_loss
        self.num_validations_since_best = 0 if is_best else self.num_validations_since_best + 1
        if is_best:
            self.best_loss = measured["loss"]
        return is_best

    def is_out_of_patience(self, patience: int | None) -> bool:
        """Say whether that many validations have brought no lower loss."""
        return patience is not None and self.num_validations_since_best >= patience

    def to_json(self) -> dict[str, Any]:
        """Return a copy in values that JSON can hold."""
        values = dataclasses.asdict(self)
        values["best_loss"] = self.best_loss if math.isfinite(self.best_loss) else None
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RunState":
        """Take the fields that are there: older checkpoints lack some."""
        names = {field.name for field in dataclasses.fields(cls)}
        state = cls(**{name: value for name, value in values.items() if name in names})
        if state.best_loss is None:
            state.best_loss = math.inf
        state.looked_around_at = values.get("looked_around_at", state.step)
        return state


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSummary:
    """What a run took and what it reached."""

    step: int
    """Optimizer steps, over all sittings."""
    tokens: int
    """Tokens trained on."""
    flops: float
    """Floating-point operations, forward and backward."""
    seconds: float
    """Duration of all sittings."""
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
        if self.num_skipped > 0:
            rows["Skipped updates"] = f"{self.num_skipped:,}"
        return rows
