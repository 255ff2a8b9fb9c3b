"""Where the batches of a run come from, as the trainer sees it."""

from collections.abc import Iterable
from typing import Protocol

from dimgpt.data.reading.batch import Batch


class TrainingData(Protocol):
    """Pure functions, so that a resumed run sees what it would have seen."""

    def batches(self, step: int) -> list[Batch]:
        """Return the micro-batches of an optimizer step."""
        ...

    def validation_batches(self, num_batches: int) -> Iterable[Batch]:
        """Return held-out batches, the same ones each time."""
        ...
