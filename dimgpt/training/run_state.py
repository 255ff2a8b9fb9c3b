"""Where a run is: everything that is neither a tensor nor a setting."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True, slots=True)
class RunState:
    """The counters of a run, as a checkpoint keeps them."""

    step: int = 0
    """Optimizer steps, skipped ones included."""
    tokens: int = 0
    """Tokens trained on."""
    seconds: float = 0.0
    """Duration of all sittings, when the checkpoint was made."""
    num_skipped: int = 0
    """Steps whose update was left out."""
    num_bad_in_a_row: int = 0
    """Newest steps whose loss or gradient was not finite."""
    looked_around_at: int = 0
    """Newest step after which everything due was done; a stop may come in between."""
    best_loss: float = math.inf
    """Lowest validation loss."""
    num_validations_since_best: int = 0
    micro_batch_rows: int | None = None
    """Rows that memory holds at once, once it has run out."""
    averages: dict[str, float] = field(default_factory=dict)
    last_validation: dict[str, float] = field(default_factory=dict)

    def take_note_of(self, validation: dict[str, float]) -> bool:
        """Remember a validation; return whether none before had a lower loss."""
        self.last_validation = validation
        is_best = validation["loss"] < self.best_loss
        self.num_validations_since_best = 0 if is_best else self.num_validations_since_best + 1
        if is_best:
            self.best_loss = validation["loss"]
        return is_best

    def has_lost(self, patience: int | None) -> bool:
        """Say whether that many validations have brought nothing better."""
        return patience is not None and self.num_validations_since_best >= patience

    def to_json(self) -> dict[str, Any]:
        """Return plain values, of which later changes here change nothing."""
        values = dataclasses.asdict(self)
        values["best_loss"] = self.best_loss if math.isfinite(self.best_loss) else None
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RunState":
        """Take the fields that are there; a checkpoint of before they were has others only."""
        names = {field.name for field in dataclasses.fields(cls)}
        state = cls(**{name: value for name, value in values.items() if name in names})
        if state.best_loss is None:
            state.best_loss = math.inf
        state.looked_around_at = values.get("looked_around_at", state.step)
        return state
