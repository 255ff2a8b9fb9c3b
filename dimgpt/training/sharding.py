"""A model that is cut among the processes: each holds a part of every weight and of its moments.

FSDP2 puts a block's weights together while it computes and lets go of them afterwards, so that a
model can be larger than one device. https://arxiv.org/abs/2304.11277
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dimgpt.data.reading.batch import Batch
from dimgpt.model.attention import KVCache
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime
from dimgpt.training.gradient import Gradient
from dimgpt.training.loss import LossSums
from dimgpt.training.tensor_parts import read_into, stored_tensors


def shard_model(model: Transformer, runtime: Runtime, *, use_compile: bool) -> None:
    """Cut a model among the processes, block by block; it moves to the device as it is cut.

    What belongs to no block, the embedding that the output layer may share above all, is a group of
    its own, which stays together from the first use of a micro-batch to the last.

    Args:
        model: The same in all processes; its parameters become `DTensor`s.
        runtime: In half precision, the blocks' weights travel in it and gradients in float32.
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
    register_fsdp_forward_method(model, "hidden_states")


def _compile(block: nn.Module) -> None:
    """Compile a block for whole sequences; with a cache it would be once for every layer."""
    eager, compiled = block.forward, torch.compile(block.forward, dynamic=False)

    def forward(x: Tensor, rotation: Any, cache: KVCache | None) -> Tensor:
        compute = compiled if cache is None else eager
        return compute(x, rotation, cache)

    block.forward = forward


class ShardedGradient(Gradient):
    """The mean of the gradients of several processes, of which each gets its part.

    They meet after every micro-batch: to let them add up first, each process would have to hold a
    whole gradient.
    """

    is_sharded = True

    def __init__(self, loss_sums: Callable[[Batch], LossSums], *, num_processes: int) -> None:
        super().__init__(loss_sums)
        self.num_means = num_processes

    def clip(self, parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
        """Scale the gradient down to a norm; return the one it had, over all parts."""
        return super().clip(parameters, max_norm).full_tensor()  # type: ignore[attr-defined]


def parts_of(tensors: Mapping[str, Tensor], *, is_first: bool) -> dict[str, Tensor]:
    """Return what this process has to keep: its parts, and on the first one what has no parts."""
    kept = {}
    for name, tensor in tensors.items():
        part = tensor.to_local() if _is_sharded(tensor) else tensor  # type: ignore[attr-defined]
        if part.numel() and (is_first or _is_sharded(tensor)):
            kept[name] = part
    return kept


def offsets_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return where in the whole tensors the parts of this process begin."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    offsets = {}
    for name, tensor in tensors.items():
        if _is_sharded(tensor):
            _, offsets[name] = compute_local_shape_and_global_offset(
                tensor.shape,
                tensor.device_mesh,  # type: ignore[attr-defined]
                tensor.placements,  # type: ignore[attr-defined]
            )
    return offsets


def restore_parts(
    model: nn.Module, optimizer: torch.optim.Optimizer, path: Path
) -> dict[str, Tensor]:
    """Read the own parts of weights and moments from a checkpoint, whoever wrote it.

    Returns:
        The tensors that belong to neither, whole.
    """
    parameters, wanted, rest = dict(model.named_parameters()), dict(model.state_dict()), {}
    for name, stored in stored_tensors(path).items():
        owner, _, key = name.rpartition("/")
        if name in wanted:
            continue
        if owner not in parameters:
            wanted[name] = rest[name] = stored
            continue
        parameter = parameters[owner].detach()
        is_like_it = stored.shape == parameter.shape
        wanted[name] = torch.zeros_like(parameter if is_like_it else stored, dtype=stored.dtype)
        optimizer.state[parameters[owner]][key] = wanted[name]
    read_into(wanted, path)
    return rest


def _is_sharded(tensor: Tensor) -> bool:
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)
