"""Rotary position embeddings on neighbouring pairs of channels.

Channels 2i and 2i + 1 form a pair, as in the paper; the half-split order of other code bases
(i with i + D / 2) is not offered here: exporting to it is a permutation of the weights.
"""

import torch
from torch import Tensor


def rope_table(num_positions: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return the cosine and sine of every angle, both (num_positions, D / 2) in float32."""
    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32), frequencies)
    return angles.cos(), angles.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of neighbouring channels by an angle proportional to its position.

    Su et al. 2021, "RoFormer", https://arxiv.org/abs/2104.09864, eq. 34.

    Args:
        x: Queries or keys, shape (B, T, H, D).
        cos: Cosines of the T positions, shape (T, D / 2), float32.
        sin: Sines of the T positions, shape (T, D / 2), float32.

    Returns:
        Same shape and dtype as `x`; the rotation is computed in float32.
    """
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # (B, T, H, D / 2) each
    cos, sin = cos[:, None, :], sin[:, None, :]  # one angle for all heads
    rotated = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return rotated.flatten(-2).type_as(x)
