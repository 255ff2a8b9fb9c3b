"""The normalisations that a block can have, by the name that `ModelConfig.norm` gives them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimgpt.config import ModelConfig


class RMSNorm(nn.Module):
    """Divide by the root mean square, computed in float32; the weight comes after the cast back.

    Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467, eq. 4.
    """

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension; shape and dtype stay."""
        return F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).type_as(x) * self.weight


def _layer_norm(config: ModelConfig) -> nn.Module:
    """Ba et al. 2016, https://arxiv.org/abs/1607.06450."""
    return nn.LayerNorm(config.embedding_dim, eps=config.norm_eps, bias=config.use_biases)


NORMS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "rms": lambda config: RMSNorm(config.embedding_dim, config.norm_eps),
    "layer": _layer_norm,
}
