"""Attention weights of each head of each layer."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dimgpt.inspection.tokens import as_batch
from dimgpt.model.attention import weigh
from dimgpt.model.transformer import Attention, Transformer


@torch.inference_mode()
def attention_weights(model: Transformer, ids: Sequence[int]) -> list[Tensor]:
    """Return the attention weights of every head in every layer.

    Queries and keys are taken from the model's own forward pass. All weights are in memory at once:
    4 * layers * H * T² bytes.

    Args:
        model: In evaluation mode.
        ids: T tokens: at least one, at most a context.

    Returns:
        Per layer (H, T, T), float32, on the CPU. Row t has the weights of position t for all
        positions; its sum is 1. Later positions and those outside the layer's window have 0.

    Raises:
        ValueError: There is no token, or the text exceeds the context.
    """
    weights: list[Tensor] = []

    def look(layer: nn.Module, given: tuple[Any, ...]) -> None:
        assert isinstance(layer, Attention)
        x, rotation, _, token_values, _ = given
        q, k, _ = layer.project(x, rotation, token_values)
        weights.append(weigh(q, k, layer.window_size)[0].cpu())

    layers = [module for module in model.modules() if isinstance(module, Attention)]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        model.hidden_states(as_batch(model, ids))
    finally:
        for hook in hooks:
            hook.remove()
    return weights
