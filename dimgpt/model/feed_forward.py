"""The feed-forward half of a block, by the name that `ModelConfig.feed_forward` gives it."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from dimgpt.config import ModelConfig


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)).

    Shazeer 2020, "GLU Variants Improve Transformer", https://arxiv.org/abs/2002.05202, eq. 6.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.embedding_dim, config.ffn_dim, bias=config.use_biases)
        self.up = nn.Linear(config.embedding_dim, config.ffn_dim, bias=config.use_biases)
        self.down = nn.Linear(config.ffn_dim, config.embedding_dim, bias=config.use_biases)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position by itself, (B, T, C) -> (B, T, C)."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class GeluNetwork(nn.Module):
    """down(gelu(up(x))), with the exact GELU.

    Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.embedding_dim, config.ffn_dim, bias=config.use_biases)
        self.down = nn.Linear(config.ffn_dim, config.embedding_dim, bias=config.use_biases)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position by itself, (B, T, C) -> (B, T, C)."""
        return self.down(F.gelu(self.up(x)))


FEED_FORWARDS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "swiglu": SwiGLU,
    "gelu": GeluNetwork,
}
