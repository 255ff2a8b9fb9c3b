"""A feed-forward layer of several experts; a router chooses a few of them for each token.

All experts of a layer are stacked in one tensor per matrix, (E, N, M). The tokens are sorted by
expert, so that one grouped matmul multiplies each expert with its own rows. No token is dropped,
and an expert may get any number of tokens. The loss `dimgpt.training.loss.router_losses` keeps the
experts equally busy.

Shapes: B batch, T positions, C embedding, E experts, K experts per token, R = B * T * K rows.
Shazeer et al. 2017, https://arxiv.org/abs/1701.06538; Jiang et al. 2024, "Mixtral of Experts",
https://arxiv.org/abs/2401.04088.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimgpt.config import ModelConfig
from dimgpt.model.feed_forward import FEED_FORWARDS

_ALIGNED_WIDTH = 8  # the grouped matmul reads 16 bytes at a time: 8 numbers of 16 bits


class Experts(nn.Module):
    """Add up the outputs of the chosen experts, each times its weight, and of the shared expert.

    The shared expert computes every token, with a weight of 1: Dai et al. 2024, "DeepSeekMoE",
    https://arxiv.org/abs/2401.06066.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.num_experts is not None
        num_experts, dim, ffn_dim = config.num_experts, config.embedding_dim, config.ffn_dim
        self.kind, self.experts_per_token = config.feed_forward, config.experts_per_token
        self.router = nn.Linear(dim, num_experts, bias=False)
        self.up = ExpertMatrices(num_experts, ffn_dim, dim)
        self.down = ExpertMatrices(num_experts, dim, ffn_dim)
        self.gate = ExpertMatrices(num_experts, ffn_dim, dim) if self.kind == "swiglu" else None
        self.shared = FEED_FORWARDS[self.kind](config) if config.use_shared_expert else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Transform (B, T, C); return the result, (B, T, C), and the router's logits, (B, T, E)."""
        with torch.autocast(x.device.type, enabled=False):  # rounding would change the choice
            logits = F.linear(x.float(), self.router.weight.float())
        weights, chosen = choose_experts(logits, self.experts_per_token)  # (B, T, K) each
        by_expert, order = chosen.flatten().sort(stable=True)  # (R,) each
        all_experts = torch.arange(logits.shape[-1], device=x.device)
        ends = torch.searchsorted(by_expert, all_experts, right=True, out_int32=True)
        rows = x.flatten(0, -2).index_select(0, order // self.experts_per_token)  # (R, C)
        mixed = self.down(self._hidden(rows, ends), ends)
        mixed = mixed.index_select(0, order.argsort()).view(*weights.shape, -1)  # (B, T, K, C)
        mixed = (mixed * weights[..., None].type_as(mixed)).sum(dim=-2)
        return mixed if self.shared is None else mixed + self.shared(x), logits

    def _hidden(self, rows: Tensor, ends: Tensor) -> Tensor:
        """Return the input of `down`, (R, ffn_dim), as in `feed_forward.py`."""
        if self.gate is not None:
            return F.silu(self.gate(rows, ends)) * self.up(rows, ends)
        hidden = self.up(rows, ends)
        return {"gelu": F.gelu, "relu2": lambda x: F.relu(x).square()}[self.kind](hidden)


class ExpertMatrices(nn.Module):
    """A linear layer for each expert: `weight` is (E, outputs, inputs)."""

    def __init__(self, num_experts: int, num_outputs: int, num_inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, num_outputs, num_inputs))

    def forward(self, rows: Tensor, ends: Tensor) -> Tensor:
        """Apply each expert's layer to its rows, (R, inputs) -> (R, outputs).

        Args:
            rows: Sorted by expert.
            ends: Where the rows of each expert end, (E,), int32; the last one is R.
        """
        device = rows.device.type
        is_half = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if is_half else rows.dtype
        if has_grouped_product(rows, self.weight, dtype):
            return grouped_product(rows.to(dtype), self.weight.to(dtype), ends)
        return product_by_product(rows, self.weight, ends)


def choose_experts(logits: Tensor, experts_per_token: int) -> tuple[Tensor, Tensor]:
    """Choose the most probable experts of each token.

    Args:
        logits: Of the router, (..., E), float32.
        experts_per_token: K.

    Returns:
        Weights of the K experts, (..., K), and their numbers, (..., K). Several weights are scaled
        to a sum of 1, as in Mixtral. A single weight is the expert's probability, as in Switch
        (https://arxiv.org/abs/2101.03961, eq. 2): scaled to 1, it would not train the router.
    """
    weights, chosen = logits.softmax(dim=-1).topk(experts_per_token, dim=-1)
    if experts_per_token > 1:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights, chosen


def has_grouped_product(rows: Tensor, weight: Tensor, dtype: torch.dtype) -> bool:
    """Return whether torch computes all products in one kernel: bfloat16 on GPUs since Ampere."""
    is_aligned = all(width % _ALIGNED_WIDTH == 0 for width in weight.shape[1:])
    is_fast = rows.is_cuda and dtype == torch.bfloat16 and is_aligned
    return is_fast and torch.cuda.get_device_capability(rows.device) >= (8, 0)


def grouped_product(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Compute what `ExpertMatrices.forward` returns, without waiting for the device."""
    return F.grouped_mm(rows, weight.mT, offs=ends)


def product_by_product(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """Compute what `ExpertMatrices.forward` returns, expert by expert."""
    if torch.compiler.is_compiling():  # it would be recompiled for other numbers of rows
        return torch.compiler.disable(_product_by_product)(rows, weight, ends)
    return _product_by_product(rows, weight, ends)


def _product_by_product(rows: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    parts = rows.tensor_split(ends.tolist()[:-1])
    # `unbind`, because the gradient of each indexing is as large as the stack.
    return torch.cat([F.linear(x, w) for x, w in zip(parts, weight.unbind(), strict=True)])
