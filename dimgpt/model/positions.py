"""Position embeddings, by the name that `ModelConfig.positions` gives them.

Both kinds are computed, not learned and not stored: rotary angles turn queries and keys inside
attention, sinusoidal waves are added to the embedding once. The tables are made on the CPU even
when the model is built on the meta device, because no weight file would fill them.

Positions restart in each document that attention stays inside. Rotary ones are relative, so there
this changes only how the angles are rounded.

Rotary pairs are neighbouring channels, 2i and 2i + 1, as in the paper. Other code bases pair
channel i with i + D / 2; exporting to them permutes the weights.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dimgpt.config import ModelConfig

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of the angles of T positions, (T, D / 2) or (B, T, D / 2) each, float32."""


class RotaryPositions(nn.Module):
    """Angles for attention; the embedding stays as it is."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._shape = config.head_dim, config.rope_theta
        with torch.device("cpu"):
            places = torch.arange(config.context_length, dtype=torch.float32)
            cos, sin = rope_table(places, *self._shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, x: Tensor, places: slice | Tensor) -> tuple[Tensor, Rotation | None]:
        """Return embeddings (B, T, C) at positions, and how attention turns.

        Positions are a slice, or int64 (T,) or (B, T), inside the context; or float64, anywhere:
        their angles are computed, and are exact for any of them.
        """
        if isinstance(places, Tensor) and places.is_floating_point():
            cos, sin = rope_table(places, *self._shape)
            return x, (cos.to(x.device), sin.to(x.device))
        return x, (self.cos[places], self.sin[places])


class SinusoidalPositions(nn.Module):
    """Waves that are added to the embedding, sines in even channels and cosines in odd ones.

    Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5.
    """

    table: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        with torch.device("cpu"):
            wavelengths = 10_000.0 ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
            positions = torch.arange(config.context_length, dtype=torch.float32)
            angles = positions[:, None] / wavelengths  # (T, C / 2)
            table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)  # (T, C)
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor, places: slice | Tensor) -> tuple[Tensor, Rotation | None]:
        """Return embeddings (B, T, C) with their positions added; attention does not turn."""
        return x + self.table[places].type_as(x), None


def positions_in(documents: Tensor, num_tokens: int) -> Tensor:
    """Return the position of each token in its document.

    Args:
        documents: Tokens of each document of a row, int64 (B, D); they add up to `num_tokens`.
        num_tokens: T.

    Returns:
        int64 (B, T).
    """
    lengths, size = documents.flatten(), len(documents) * num_tokens
    begins = (lengths.cumsum(0) - lengths).repeat_interleave(lengths, output_size=size)
    return (torch.arange(size, device=documents.device) - begins).unflatten(0, (-1, num_tokens))


def rope_table(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return the cosine and sine of every angle, (..., D / 2) in float32, of positions (...)."""
    channels = torch.arange(0, head_dim, 2, dtype=positions.dtype, device=positions.device)
    frequencies = theta ** (-channels / head_dim)
    angles = positions[..., None] * frequencies
    return angles.cos().float(), angles.sin().float()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of neighbouring channels by an angle proportional to its position.

    Su et al. 2021, "RoFormer", https://arxiv.org/abs/2104.09864, eq. 34.

    Args:
        x: Queries or keys, shape (B, T, H, D).
        cos: Cosines of the positions' angles, shape (T, D / 2) or (B, T, D / 2), float32.
        sin: Their sines, of the same shape.

    Returns:
        Same shape and dtype as `x`; the rotation is computed in float32.
    """
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # (B, T, H, D / 2) each
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)  # one angle for all heads
    rotated = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return rotated.flatten(-2).type_as(x)


def rotate(q: Tensor, k: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
    """Rotate queries (B, T, H, D) and keys (B, T, H_kv, D) by the angles of their positions."""
    if q.shape[1] > 1:
        return apply_rope(q, *rotation), apply_rope(k, *rotation)
    # Of one position, the calls cost more than the numbers: both in the same ones.
    turned = apply_rope(torch.cat((q, k), dim=2), *rotation)
    return turned[:, :, : q.shape[2]], turned[:, :, q.shape[2] :]


POSITIONS: dict[str, Callable[[ModelConfig], RotaryPositions | SinusoidalPositions]] = {
    "rotary": RotaryPositions,
    "sinusoidal": SinusoidalPositions,
}
