"""How a token comes to know its place, by the name that `ModelConfig.positions` gives it.

Both are computed, not learned and not stored: rotary angles turn queries and keys inside attention
(`rope.py`), sinusoidal waves are added to the embedding once. The tables are made on the CPU even
where a model is built without numbers (on the meta device), since no file would fill them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dimgpt.config import ModelConfig
from dimgpt.model.rope import rope_table

Rotation = tuple[Tensor, Tensor]
"""Cosine and sine of the angles of T positions, (T, D / 2) each, float32."""


class RotaryPositions(nn.Module):
    """Angles for attention; the embedding stays as it is."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        with torch.device("cpu"):
            cos, sin = rope_table(config.context_length, config.head_dim, config.rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, x: Tensor, start: int) -> tuple[Tensor, Rotation | None]:
        """Return embeddings (B, T, C) at positions `start` onwards, and how attention turns."""
        places = slice(start, start + x.shape[1])
        return x, (self.cos[places], self.sin[places])


class SinusoidalPositions(nn.Module):
    """Waves that are added to the embedding, sines in even channels and cosines in odd ones.

    Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5.
    """

    table: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        with torch.device("cpu"):
            table = sinusoidal_table(config.context_length, config.embedding_dim)
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor, start: int) -> tuple[Tensor, Rotation | None]:
        """Return embeddings (B, T, C) with their positions added; attention does not turn."""
        return x + self.table[start : start + x.shape[1]].type_as(x), None


def sinusoidal_table(num_positions: int, dim: int) -> Tensor:
    """Return what is added at each position, (num_positions, dim), float32."""
    wavelengths = 10_000.0 ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    angles = torch.arange(num_positions, dtype=torch.float32)[:, None] / wavelengths
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


POSITIONS: dict[str, Callable[[ModelConfig], RotaryPositions | SinusoidalPositions]] = {
    "rotary": RotaryPositions,
    "sinusoidal": SinusoidalPositions,
}
