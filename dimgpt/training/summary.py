"""The end of a run as a table."""

from dataclasses import dataclass


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
    """Steps whose update was left out: not finite, or a spike."""
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
