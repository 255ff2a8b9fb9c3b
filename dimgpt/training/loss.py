"""The loss of a batch, as sums: who adds up several batches divides at the end."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dimgpt.config import TrainingConfig
from dimgpt.data.batch import Batch
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime
from dimgpt.training.processes import is_sharded


class LossSums(NamedTuple):
    """Sums over the tokens of a batch, scalars on the device."""

    loss: Tensor
    """Weighted cross-entropy, in nats."""
    correct: Tensor
    """Weight of the tokens that the model finds most probable."""


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> LossSums:
    """Compare logits (B, T, V) with targets (B, T), int64, under weights (B, T), float32."""
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    with torch.no_grad():
        correct = ((logits.argmax(dim=-1) == targets) * weights).sum()
    return LossSums((losses * weights.flatten()).sum(), correct)


def uses_compile(config: TrainingConfig, runtime: Runtime) -> bool:
    """Say whether the model is to be compiled."""
    return runtime.device.type == "cuda" if config.use_compile is None else config.use_compile


def compiled_loss(
    model: Transformer, config: TrainingConfig, runtime: Runtime
) -> Callable[[Batch], LossSums]:
    """Return the function from a batch on the device to its loss, compiled if the config says so.

    The loss is compiled together with the model: its passes over (B, T, V) then become one.
    """

    def sums(inputs: Tensor, targets: Tensor, weights: Tensor) -> LossSums:
        return weighted_cross_entropy(model(inputs), targets, weights)

    # Of a model that is cut among processes, the blocks are compiled; see `sharding.py`.
    is_whole = uses_compile(config, runtime) and not is_sharded(config, runtime)
    compute = torch.compile(sums, dynamic=False) if is_whole else sums
    return lambda batch: compute(batch.inputs, batch.targets, batch.weights)
