"""The feed-forward half of a block, by the name that `ModelConfig.feed_forward` gives it."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from dimgpt.config import ModelConfig

# Above this many positions, padding the weights is cheaper than a matmul of odd width.
_NUM_POSITIONS_WORTH_PADDING = 2048


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)).

    Shazeer 2020, "GLU Variants Improve Transformer", https://arxiv.org/abs/2002.05202, eq. 6.

    Matmuls on a GPU are faster if their widths are multiples of 64, so the weights are padded with
    zeros for the matmul. silu(0) * 0 is 0, so the result is the same. The stored weights keep their
    width. Layers with adapters (`lora.py`) are not padded.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.embedding_dim, config.ffn_dim, bias=config.use_biases)
        self.up = nn.Linear(config.embedding_dim, config.ffn_dim, bias=config.use_biases)
        self.down = nn.Linear(config.ffn_dim, config.embedding_dim, bias=config.use_biases)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position by itself, (B, T, C) -> (B, T, C)."""
        multiple = width_multiple(x.device.type, num_positions=x.shape[:-1].numel())
        num_zeros = -self.gate.out_features % multiple
        if num_zeros == 0 or any(type(layer) is not nn.Linear for layer in self.children()):
            return self.down(F.silu(self.gate(x)) * self.up(x))
        hidden = F.silu(_widened(self.gate, x, num_zeros)) * _widened(self.up, x, num_zeros)
        return F.linear(hidden, F.pad(self.down.weight, (0, num_zeros)), self.down.bias)


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


class SquaredReLUNetwork(GeluNetwork):
    """down(relu(up(x))²).

    So et al. 2021, "Primer", https://arxiv.org/abs/2109.08668, section 4.2.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position by itself, (B, T, C) -> (B, T, C)."""
        return self.down(F.relu(self.up(x)).square())


def width_multiple(device_type: str, *, num_positions: int) -> int:
    """Return the number that the width of a matmul should be a multiple of.

    Tensor cores read 16 bytes at a time and work on tiles of 64. In a compiled model the padded
    copies cost nothing, because they are part of the cast to half precision. CPUs gain nothing.
    """
    is_worth_it = device_type == "cuda" and num_positions >= _NUM_POSITIONS_WORTH_PADDING
    return 64 if is_worth_it else 1


def _widened(layer: nn.Linear, x: Tensor, num_zeros: int) -> Tensor:
    """Apply a layer, with `num_zeros` zeros appended to its outputs."""
    bias = None if layer.bias is None else F.pad(layer.bias, (0, num_zeros))
    return F.linear(x, F.pad(layer.weight, (0, 0, 0, num_zeros)), bias)


FEED_FORWARDS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "swiglu": SwiGLU,
    "gelu": GeluNetwork,
    "relu2": SquaredReLUNetwork,
}
