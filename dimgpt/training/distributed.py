"""Collective operations between the processes that train one model.

Torchrun starts the processes and `runtime.py` joins them. Each holds either the whole model, or a
part of every tensor (`sharding.py`). With a single process, the functions here wait for nobody.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dimgpt.config import TrainingConfig
from dimgpt.data.reading.batch import Batch
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime
from dimgpt.training.checkpoint import Checkpoint, CheckpointStore
from dimgpt.training.loss import LossSums, uses_compile
from dimgpt.training.micro_batches import is_out_of_memory
from dimgpt.training.sharding import is_sharded, shard_model
from dimgpt.training.step import Stepper

T = TypeVar("T")


def place_model(model: Transformer, config: TrainingConfig, runtime: Runtime) -> Transformer:
    """Move a model to the device, sharded if the config says so.

    Raises:
        ValueError: The model has adapters, which cannot be sharded.
    """
    if is_sharded(config, runtime):
        if model.lora.rank:
            raise ValueError(
                f"sharding is 'full' and lora.rank {model.lora.rank}: adapters cannot be sharded; "
                "set sharding to 'none'"
            )
        shard_model(model, runtime, use_compile=uses_compile(config, runtime))
    return model.to(runtime.device)


def build_stepper(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    loss_sums: Callable[[Batch], LossSums],
    config: TrainingConfig,
    runtime: Runtime,
) -> Stepper:
    """Return the `Stepper` of a model that `place_model` has placed."""
    is_replicated = runtime.num_processes > 1 and not is_sharded(config, runtime)
    kind = ReplicatedStepper if is_replicated else Stepper
    return kind(model, optimizer, loss_sums, config, runtime=runtime)


class ReplicatedStepper(Stepper):
    """Each process has the whole model; the gradients are averaged once a step.

    DistributedDataParallel exchanges them bucket by bucket during the backward pass of the last
    micro-batch. https://arxiv.org/abs/2006.15704
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        module = _LossModule(self.model, self.loss_sums)
        self.loss_sums = self._engine = DistributedDataParallel(
            module, gradient_as_bucket_view=True
        )
        self._is_first_step = True

    def _backward(self, piece: Batch, *, weight: float, is_last: bool) -> Tensor:
        """Exchange gradients during the last micro-batch of a step.

        The first step exchanges them afterwards, in `_update`. Memory most likely runs out in the
        first step, and a process can then start it again with smaller micro-batches.

        Raises:
            RuntimeError: Memory ran out while gradients may have been exchanged.
        """
        if self._is_first_step or not is_last:
            with self._engine.no_sync():
                return super()._backward(piece, weight=weight, is_last=is_last)
        try:
            return super()._backward(piece, weight=weight, is_last=is_last)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise RuntimeError(
                "memory ran out while the processes were exchanging gradients: run again with a "
                "smaller batch_size; it resumes from the last checkpoint"
            ) from None

    def _update(self, means: Tensor) -> Tensor:
        if self._is_first_step:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= self.runtime.num_processes
            self._is_first_step = False
        return super()._update(means)


class _LossModule(nn.Module):
    """The loss as a module, which DistributedDataParallel requires.

    It has the parameters of the model but not its buffers, which need no exchange.
    """

    def __init__(self, model: nn.Module, loss_sums: Callable[[Batch], LossSums]) -> None:
        super().__init__()
        self.trained, self.loss_sums = nn.ParameterList(model.parameters()), loss_sums

    def forward(self, batch: Batch) -> LossSums:
        return self.loss_sums(batch)


def lead(work: Callable[[], T], runtime: Runtime) -> T | None:
    """Let the first process do something that may fail; the others wait, and get `None`.

    Raises:
        SystemExit: In the others, if it failed; the first process raises the error itself.
    """
    if runtime.num_processes == 1:
        return work()
    is_done, result = torch.zeros(1), None
    try:
        if runtime.is_first:
            result = work()
            is_done.fill_(1)
    finally:
        dist.broadcast(is_done, src=0)
    if not is_done:
        raise SystemExit(1)
    return result


def load_latest(store: CheckpointStore, runtime: Runtime) -> Checkpoint | None:
    """Load the newest intact checkpoint; the first process chooses it for all.

    Raises:
        RuntimeError: Another process does not find it.
    """
    checkpoint = store.load_latest() if runtime.is_first else None
    if runtime.num_processes == 1:
        return checkpoint
    step = torch.tensor([-1 if checkpoint is None else checkpoint.step])
    dist.broadcast(step, src=0)
    if runtime.is_first or step < 0:
        return checkpoint
    try:
        return store.load(store.path_of("step", int(step)))
    except (ValueError, OSError) as error:
        raise RuntimeError(
            f"process {runtime.rank} cannot load the checkpoint of the first process ({error}): "
            "put the run's folder on a disk that all machines share"
        ) from None
