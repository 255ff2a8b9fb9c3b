"""The feed-forward half of a block.

SwiGLU: Shazeer 2020, "GLU Variants Improve Transformer", https://arxiv.org/abs/2002.05202, eq. 6.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from dimgpt.config import ModelConfig


class FeedForward(nn.Module):
    """down(silu(gate(x)) * up(x)), without biases."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.embedding_dim, config.ffn_dim, bias=False)
        self.up = nn.Linear(config.embedding_dim, config.ffn_dim, bias=False)
        self.down = nn.Linear(config.ffn_dim, config.embedding_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position by itself, (B, T, C) -> (B, T, C)."""
        return self.down(F.silu(self.gate(x)) * self.up(x))
