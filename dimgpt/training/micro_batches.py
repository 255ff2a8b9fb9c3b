"""How many rows go through the model at once: as many as memory holds.

The rows of a step, and so its gradient, are the same however they are cut.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from dimgpt.data.reading.batch import Batch

T = TypeVar("T")


class MicroBatches:
    """Cuts batches, and cuts them smaller when memory runs out.

    Args:
        num_rows: Most rows at once; `None` takes the batches as they come.
        may_halve: Whether a process may begin its rows again: not if others wait for each piece.
    """

    def __init__(self, num_rows: int | None = None, *, may_halve: bool = True) -> None:
        self.num_rows, self.may_halve = num_rows, may_halve

    def run(self, work: Callable[[list[Batch]], T], batches: Sequence[Batch]) -> T:
        """Do `work` on the batches, again in pieces of half the size when memory runs out.

        Args:
            work: Must leave nothing behind when it fails.
            batches: Their rows reach `work` in their order.

        Raises:
            torch.OutOfMemoryError: A single row is too much.
        """
        while True:
            try:
                return work(self.cut(batches))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if not self.may_halve:
                    raise RuntimeError(
                        "memory ran out, and a model in parts cannot halve its micro-batches on "
                        "the way: lower batch_size, raise accumulation_steps, and run again"
                    ) from None
            # Only here is the error gone, and with it the tensors that its traceback held.
            torch.cuda.empty_cache()
            self._halve(batches)

    def cut(self, batches: Sequence[Batch]) -> list[Batch]:
        """Return the batches in pieces of at most `num_rows`."""
        if self.num_rows is None:
            return list(batches)
        return [
            Batch(
                inputs=batch.inputs[first : first + self.num_rows],
                targets=batch.targets[first : first + self.num_rows],
                weights=batch.weights[first : first + self.num_rows],
            )
            for batch in batches
            for first in range(0, len(batch.inputs), self.num_rows)
        ]

    def _halve(self, batches: Sequence[Batch]) -> None:
        largest = max(len(batch.inputs) for batch in self.cut(batches))
        if largest == 1:
            raise torch.OutOfMemoryError(
                "memory runs out with a single row at a time: free some of it, or take a smaller "
                "model or context_length"
            )
        self.num_rows = (largest + 1) // 2


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory has run out."""
    # The CPU's allocator raises a plain RuntimeError.
    is_cpu = "DefaultCPUAllocator" in str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or is_cpu
