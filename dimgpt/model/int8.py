"""Weights of 8 bits, to generate faster on a CPU, which reads all weights from memory for a token.

Each row of a matrix is scaled so that its largest absolute value is 127, and rounded: Dettmers et
al. 2022, "LLM.int8()", https://arxiv.org/abs/2208.07339, section 2. Embeddings, norms and stacks of
experts are not rounded.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimgpt.model.transformer import Transformer

_NUM_FEW_ROWS = 8
_ALIGNMENT = 16  # torch's product reads beyond the end of rows of another length


# torch 2.13 cannot compile its own operator, and one of ours takes longer to call.
@torch.library.custom_op("dimgpt::int8_product", mutates_args=())
def _product(rows: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """Multiply bfloat16 (N, K) with int8 (M, K) and scales (M,): (N, M)."""
    return torch._weight_int8pack_mm(rows, weight, scales)


@_product.register_fake
def _shape_of_product(rows: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    return rows.new_empty(len(rows), len(weight))


class Int8Linear(nn.Module):
    """A linear layer with an int8 matrix and one scale per row; it cannot be trained."""

    weight: Tensor
    scales: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        scales = weight.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        rounded = (weight / scales[:, None]).round().to(torch.int8)
        self._num_zeros = -self.in_features % _ALIGNMENT
        self.register_buffer("weight", F.pad(rounded, (0, self._num_zeros)))
        self.register_buffer("scales", scales)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """Compute (..., inputs) -> (..., outputs), in bfloat16 for few rows."""
        rows = F.pad(x.flatten(0, -2), (0, self._num_zeros))
        if len(rows) <= _NUM_FEW_ROWS:
            is_compiling = torch.compiler.is_compiling()
            multiply = _product if is_compiling else torch._weight_int8pack_mm
            scales = self.scales.bfloat16()
            product = multiply(rows.bfloat16(), self.weight, scales).type_as(x)
        else:
            product = F.linear(rows, self.weight.type_as(rows)) * self.scales
        product = product.unflatten(0, x.shape[:-1])
        return product if self.bias is None else product + self.bias


@torch.no_grad()
def round_to_int8(model: Transformer) -> None:
    """Replace the linear layers of a model; it can no longer be trained or saved.

    Raises:
        ValueError: The model is not on a CPU.
    """
    device = model.token_embedding.weight.device
    if device.type != "cpu":
        raise ValueError(
            f"use_int8 is for CPUs, and the model is on {device}: leave it out, or hide the GPU "
            "(CUDA_VISIBLE_DEVICES='')"
        )
    layers = {name: x for name, x in model.blocks.named_modules() if type(x) is nn.Linear}
    for name, layer in layers.items():
        if not name.endswith("router"):  # experts are chosen in float32
            model.blocks.set_submodule(name, Int8Linear(layer.weight, layer.bias))
    model.int8_output = Int8Linear(model.output_matrix, model.output_bias)
