"""Sharded models and their checkpoints: each process has a part of every weight and moment.

FSDP2 gathers a block's weights while it computes and frees them afterwards, so that a model can be
larger than one device. It averages gradients after each micro-batch; summing them over a step first
would take a whole gradient per process. https://arxiv.org/abs/2304.11277

    checkpoints/step-00000500/   model-00001-of-00002.safetensors, model-00002-of-00002.safetensors,
                                 optimizer-..., state.json, manifest.json

Any number of processes can resume from these checkpoints, and from those of one process.
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dimgpt.config import TrainingConfig
from dimgpt.files import new_folder, sync_folder, unfinished
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime
from dimgpt.training.checkpoint import Checkpoint, CheckpointStore
from dimgpt.training.tensor_files import empty_tensors, read_into, write_tensors

T = TypeVar("T")


def is_sharded(config: TrainingConfig, runtime: Runtime) -> bool:
    """Return whether each process has a part of the weights."""
    return config.sharding == "full" and runtime.num_processes > 1


def shard_model(model: Transformer, runtime: Runtime, *, use_compile: bool) -> None:
    """Divide a model among the processes, block by block, and move it to the device.

    Parameters outside the blocks form one group, above all the embedding, which the output layer
    may share. It stays gathered from its first use in a micro-batch to its last.

    Args:
        model: The same in all processes; its parameters become `DTensor`s.
        runtime: In half precision, weights are gathered in it and gradients averaged in float32.
        use_compile: Compile each block; torch cannot compile across the borders of the groups.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import (
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    mesh = init_device_mesh(runtime.device.type, (runtime.num_processes,))
    policy = MixedPrecisionPolicy(
        param_dtype=runtime.half_dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for block in model.blocks:
        if use_compile:
            _compile(block)
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "hidden_states_and_routing")


def _compile(block: nn.Module) -> None:
    """Compile a block for whole sequences; with a cache it would be recompiled for each layer."""
    eager, compiled = block.forward, torch.compile(block.forward, dynamic=False)

    def forward(x: Tensor, embedding: Tensor, rotation: Any, cache: Any, *others: Any) -> Any:
        compute = compiled if cache is None else eager
        return compute(x, embedding, rotation, cache, *others)

    block.forward = forward


def own_parts(
    tensors: Mapping[str, Tensor], *, is_first: bool
) -> tuple[dict[str, Tensor], dict[str, tuple[int, ...]]]:
    """Return the parts that this process saves, and where they begin in the whole tensors.

    The first process also saves the tensors that are not sharded.
    """
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    parts, offsets = {}, {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            part = tensor.to_local()
            _, offset = compute_local_shape_and_global_offset(
                tensor.shape, tensor.device_mesh, tensor.placements
            )
        else:
            part, offset = tensor, (0,) * tensor.dim()
        if part.numel() and (is_first or part is not tensor):
            parts[name], offsets[name] = part, offset
    return parts, offsets


def restore_parts(
    model: nn.Module, optimizer: torch.optim.Optimizer, path: Path
) -> dict[str, Tensor]:
    """Read this process's parts of weights and moments from a sharded or whole checkpoint.

    Returns:
        The tensors that are neither weights nor moments, whole.
    """
    parameters, wanted, rest = dict(model.named_parameters()), dict(model.state_dict()), {}
    for name, stored in empty_tensors(path).items():
        owner, _, key = name.rpartition("/")
        if name in wanted:
            continue
        if owner not in parameters:
            wanted[name] = rest[name] = stored
            continue
        parameter = parameters[owner].detach()
        is_like_it = stored.shape == parameter.shape
        # Fused AdamW needs its step counter on the parameter's device.
        like = parameter if is_like_it else stored.to(parameter.device)
        wanted[name] = torch.zeros_like(like, dtype=stored.dtype)
        optimizer.state[parameters[owner]][key] = wanted[name]
    read_into(wanted, path)
    return rest


class ShardedCheckpointStore(CheckpointStore):
    """The checkpoints of a run whose processes have parts of the tensors.

    All processes must save the same checkpoints in the same order, on a disk that they share. They
    may save from any thread.
    """

    def __init__(self, folder: Path, runtime: Runtime, **keep: int) -> None:
        super().__init__(folder, **keep)
        self.runtime = runtime
        # A group of its own, because another thread may be using the run's group.
        self._group = dist.new_group(backend="gloo")

    def save(self, checkpoint: Checkpoint, *, kind: str = "step") -> Path:
        """Write a checkpoint; its tensors are this process's parts.

        Raises:
            OSError: One of the processes cannot write; the earlier checkpoints are unchanged.
            RuntimeError: Another process failed for another reason.
        """
        path = self.path_of(kind, checkpoint.step)
        temporary = unfinished(path)
        is_first = self.runtime.is_first
        with contextlib.ExitStack() as stack:
            self._together(lambda: is_first and stack.enter_context(new_folder(path)))
            written = self._together(lambda: self._write_parts(temporary, checkpoint))
            hashes = self._gather(written)
            if is_first:
                stack.callback(self._complete, temporary, checkpoint, hashes)
            self._together(stack.close)
        if is_first:
            self._drop(kind, newest=path)
        return path

    def _load_tensors(self, path: Path) -> dict[str, dict[str, Tensor]]:
        return {}  # each process reads its parts with `restore_parts`

    def _problem_with(self, path: Path) -> str | None:
        return super()._problem_with(path) if self.runtime.is_first else None

    def _write_parts(self, folder: Path, checkpoint: Checkpoint) -> dict[str, str]:
        """Write this process's parts; return their hash by file, empty where it has no parts."""
        hashes = {}
        for name, tensors in checkpoint.tensors.items():
            file = folder / self._part(name, self.runtime.rank)
            offsets = {key: checkpoint.offsets[key] for key in tensors}
            hashes[name] = write_tensors(file, tensors, offsets=offsets) if tensors else ""
            if tensors:
                sync_folder(file)  # on a shared disk, each machine must flush its own files
        return hashes

    def _part(self, name: str, rank: int) -> str:
        return f"{name}-{rank + 1:05d}-of-{self.runtime.num_processes:05d}.safetensors"

    def _gather(self, hashes: Mapping[str, str]) -> dict[str, str]:
        own = torch.tensor([list(bytes.fromhex(hashed or "00" * 32)) for hashed in hashes.values()])
        found = [torch.empty_like(own) for _ in range(self.runtime.num_processes)]
        dist.all_gather(found, own, group=self._group)
        return {
            self._part(name, rank): bytes(row).hex()
            for rank, rows in enumerate(found)
            for name, row in zip(hashes, rows.tolist(), strict=True)
            if any(row)
        }

    def _together(self, work: Callable[[], T]) -> T:
        """Do something in every process; if it fails in one, raise in all.

        All exceptions are caught: the others would wait for ever for a process that left.
        """
        error: Exception | None = None
        try:
            result = work()
        except Exception as caught:
            error = caught
        own = 0 if error is None else 1 if isinstance(error, OSError) else 2
        worst = torch.tensor([own])
        dist.all_reduce(worst, dist.ReduceOp.MAX, group=self._group)
        if error is not None and own == worst:
            raise error
        if worst == 1:
            raise OSError("another process could not write its part")
        if worst == 2:
            raise RuntimeError(
                "another process failed while it wrote its part of a checkpoint, see its error; "
                "run again to resume from the last checkpoint"
            ) from error
        return result
