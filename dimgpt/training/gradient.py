"""The gradient of a step, as the step sees it: pieces that go forward and backward, and its norm.

Here it is that of one process; `distributed.py` and `sharding.py` have those of several.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from dimgpt.data.reading.batch import Batch
from dimgpt.training.loss import LossSums


class Gradient:
    """The gradient of a process on its own.

    Args:
        loss_sums: From a batch on the device to its sums.
    """

    num_means = 1
    """Gradients of which the mean is taken."""
    is_sharded = False
    """Whether each process has a part of the weights."""

    def __init__(self, loss_sums: Callable[[Batch], LossSums]) -> None:
        self.loss_sums = loss_sums

    @contextlib.contextmanager
    def piece(self, *, is_last: bool) -> Iterator[None]:
        """Go forward and backward in the block; the last piece completes the gradient of a step."""
        yield

    def complete(self) -> None:
        """Complete what the last piece has not."""

    def clip(self, parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
        """Scale the gradient down to a norm; return the one it had."""
        return nn.utils.clip_grad_norm_(parameters, max_norm)
