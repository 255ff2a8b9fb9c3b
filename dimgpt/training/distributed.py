"""Several processes with the whole model each, whose gradients meet once a step.

DistributedDataParallel takes their mean, bucket by bucket, while the last micro-batch of a step
still goes backward. https://arxiv.org/abs/2006.15704
"""

import contextlib
from collections.abc import Callable, Iterator

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dimgpt.config import TrainingConfig
from dimgpt.data.reading.batch import Batch
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime
from dimgpt.training.gradient import Gradient
from dimgpt.training.loss import LossSums, uses_compile
from dimgpt.training.micro_batches import is_out_of_memory
from dimgpt.training.processes import is_sharded
from dimgpt.training.sharding import ShardedGradient, shard_model


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
            _LossModule(model, loss_sums), gradient_as_bucket_view=True
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
    """The loss as a module, which is what torch's engine takes.

    It has the parameters of the model and not its buffers, which need no exchange.
    """

    def __init__(self, model: nn.Module, loss_sums: Callable[[Batch], LossSums]) -> None:
        super().__init__()
        self.trained, self.loss_sums = nn.ParameterList(model.parameters()), loss_sums

    def forward(self, batch: Batch) -> LossSums:
        """Return the sums over a batch on the device."""
        return self.loss_sums(batch)


def place_model(model: Transformer, config: TrainingConfig, runtime: Runtime) -> Transformer:
    """Move a model to the device, in parts if the config says so."""
    if is_sharded(config, runtime):
        shard_model(model, runtime, use_compile=uses_compile(config, runtime))
    return model.to(runtime.device)


def build_gradient(
    model: Transformer,
    loss_sums: Callable[[Batch], LossSums],
    config: TrainingConfig,
    runtime: Runtime,
) -> Gradient:
    """Return what takes the gradients of a model that `place_model` has placed."""
    if runtime.num_processes == 1:
        return Gradient(loss_sums)
    if is_sharded(config, runtime):
        return ShardedGradient(loss_sums, num_processes=runtime.num_processes)
    return SharedGradient(model, loss_sums, num_processes=runtime.num_processes)
