"""Low-rank adapters: small matrices that are trained in place of the weights of linear layers.

A layer computes W x + alpha / rank * B A x. W and all other weights of the model are frozen. B
begins at 0, so a model with new adapters computes the same as without, bit for bit. Hu et al. 2021,
"LoRA", https://arxiv.org/abs/2106.09685, section 4.1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimgpt.config import LoraConfig
from dimgpt.model.transformer import Transformer

ADAPTER_PARTS = ("lora_a", "lora_b")
"""Endings of the names of adapter tensors."""
# Bytes per trained float32 parameter: the gradient and AdamW's two moments.
_TRAINING_BYTES = 12


class LoraLinear(nn.Linear):
    """A linear layer with an adapter; shares its weights with the layer that it replaces.

    `lora_a` is A, (rank, inputs), and `lora_b` is B, (outputs, rank). Dropout applies to the input
    of A.
    """

    def __init__(self, layer: nn.Linear, config: LoraConfig) -> None:
        has_bias = layer.bias is not None
        super().__init__(layer.in_features, layer.out_features, bias=has_bias, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.scale = config.alpha / config.rank
        self.dropout = nn.Dropout(config.dropout)
        bound = layer.in_features**-0.5
        a = torch.empty(config.rank, layer.in_features).uniform_(-bound, bound)
        self.lora_a = nn.Parameter(a.to(layer.weight.device))
        self.lora_b = nn.Parameter(layer.weight.new_zeros(layer.out_features, config.rank))
        self.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer and its adapter, (..., inputs) -> (..., outputs)."""
        update = F.linear(F.linear(self.dropout(input), self.lora_a), self.lora_b)
        return super().forward(input) + self.scale * update

    def merged(self) -> nn.Linear:
        """Return a plain layer that computes the same: a new weight, and the same bias tensor."""
        has_bias = self.bias is not None
        layer = nn.Linear(self.in_features, self.out_features, bias=has_bias, device="meta")
        weight = self.weight + self.scale * (self.lora_b @ self.lora_a)
        layer.weight, layer.bias = nn.Parameter(weight.detach()), self.bias
        return layer


def add_adapters(model: Transformer, config: LoraConfig) -> None:
    """Freeze a model and add new adapters to its blocks, drawn from torch's generator.

    Raises:
        ValueError: The model has none of the target layers.
    """
    model.requires_grad_(False)
    model.lora = config
    layers = {
        name: layer
        for name, layer in model.blocks.named_modules()
        if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in config.targets
    }
    if not layers:
        raise ValueError(
            f"lora.targets is {', '.join(config.targets)}: the model has no such linear layer "
            "outside of its stacks of experts; name query, key, value or output"
        )
    for name, layer in layers.items():
        model.blocks.set_submodule(name, LoraLinear(layer, config))


def merge_adapters(model: Transformer) -> None:
    """Add the adapters to their weights, so that the model is a plain one again."""
    layers = {n: x for n, x in model.blocks.named_modules() if isinstance(x, LoraLinear)}
    for name, layer in layers.items():
        model.blocks.set_submodule(name, layer.merged())
    model.requires_grad_(True)
    model.lora = LoraConfig()


def adapter_tensors(model: Transformer) -> dict[str, Tensor]:
    """Return the tensors of the adapters by their names in the model; empty without adapters."""
    return {n: x for n, x in model.state_dict().items() if n.endswith(ADAPTER_PARTS)}


def base_tensors(model: Transformer) -> dict[str, Tensor]:
    """Return all other tensors, under the names that they have without adapters."""
    return {n: x for n, x in model.state_dict().items() if not n.endswith(ADAPTER_PARTS)}


def trained_share(model: Transformer) -> str:
    """Say how many parameters adapters train, and the memory of gradient and optimizer.

    Without adapters, the result is empty.
    """
    if not model.lora.rank:
        return ""
    trained, total = model.num_trained_parameters, model.num_parameters
    return (
        f"{trained:,} of {total:,} ({trained / total:.1%}), gradient and optimizer take "
        f"{trained * _TRAINING_BYTES / 1e6:,.1f} MB instead of {total * _TRAINING_BYTES / 1e6:,.1f}"
    )
