"""The loss of a batch, as sums: who adds up several batches divides at the end."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


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
