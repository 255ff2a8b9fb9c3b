"""How the gradient of a step comes together: in one process, or in several that meet once a step.

Several have the whole model each, and DistributedDataParallel takes the mean of their gradients,
bucket by bucket, while the last micro-batch of a step still goes backward.
https://arxiv.org/abs/2006.15704
"""

import contextlib
from collections.abc import Callable, Iterator

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dimgpt.data.batch import Batch
from dimgpt.runtime import Runtime
from dimgpt.training.loss import LossSums
from dimgpt.training.micro_batches import is_out_of_memory


class Gradient:
    """The gradient of a process on its own.

    Args:
        loss_sums: From a batch on the device to its sums.
    """

    num_means = 1
    """Gradients of which the mean is taken."""

    def __init__(self, loss_sums: Callable[[Batch], LossSums]) -> None:
        self.loss_sums = loss_sums

    @contextlib.contextmanager
    def piece(self, *, is_last: bool) -> Iterator[None]:
        """Go forward and backward in the block; the last piece completes the gradient of a step."""
        yield

    def complete(self) -> None:
        """Complete what the last piece has not."""


class SharedGradient(Gradient):
    """The mean of the gradients of several processes.

    Args:
        model: The same in all processes.
        loss_sums: From a batch on the device to its sums.
        num_processes: How many they are.
    """

    def __init__(
        self, model: nn.Module, loss_sums: Callable[[Batch], LossSums], *, num_processes: int
    ) -> None:
        self.model, self.num_means = model, num_processes
        self._engine = DistributedDataParallel(
            _LossModule(model, loss_sums), broadcast_buffers=False, gradient_as_bucket_view=True
        )
        super().__init__(self._engine)
        self._is_first_step = True

    @contextlib.contextmanager
    def piece(self, *, is_last: bool) -> Iterator[None]:
        """Let the gradients meet in the block's backward pass if it is the last of a step.

        The first step of a sitting is where memory runs out, if it does: its gradients meet when
        all of them are there, so that a process can begin it again with smaller pieces.

        Raises:
            RuntimeError: Memory ran out when a part of the gradients may have met already.
        """
        if self._is_first_step or not is_last:
            with self._engine.no_sync():
                yield
            return
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise RuntimeError(
                "memory ran out while the processes were exchanging gradients: run again to go on "
                "from the last checkpoint, with a smaller batch_size"
            ) from None

    def complete(self) -> None:
        """Let the gradients of the first step meet."""
        if self._is_first_step:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= self.num_means
        self._is_first_step = False


class _LossModule(nn.Module):
    """The loss as a module, which is what torch's engine takes."""

    def __init__(self, model: nn.Module, loss_sums: Callable[[Batch], LossSums]) -> None:
        super().__init__()
        self.model, self.loss_sums = model, loss_sums

    def forward(self, batch: Batch) -> LossSums:
        """Return the sums over a batch on the device."""
        return self.loss_sums(batch)


def build_gradient(
    model: nn.Module, loss_sums: Callable[[Batch], LossSums], runtime: Runtime
) -> Gradient:
    """Return what takes gradients here."""
    if runtime.num_processes == 1:
        return Gradient(loss_sums)
    return SharedGradient(model, loss_sums, num_processes=runtime.num_processes)
