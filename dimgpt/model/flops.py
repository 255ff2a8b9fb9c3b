"""Counts the parameters of a model and the floating-point operations per token."""

import torch

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer


def num_parameters(config: ModelConfig, *, only_trainable: bool = False) -> int:
    """Count the parameters of `Transformer(config)` without building it; tied ones count once."""
    with torch.device("meta"):
        parameters = Transformer(config).parameters()
    return sum(p.numel() for p in parameters if p.requires_grad or not only_trainable)


def num_active_parameters(config: ModelConfig) -> int:
    """Count the parameters that a token uses: all but those of the experts not chosen for it."""
    num_idle = 0 if config.num_experts is None else config.num_experts - config.experts_per_token
    return num_parameters(config) - config.num_layers * num_idle * _expert_weights(config)


def training_flops_per_token(config: ModelConfig, *, is_frozen: bool = False) -> float:
    """Return the FLOPs of forward and backward, averaged over a full context.

    Each weight of a matrix costs a multiplication and an addition in the forward pass, and twice
    that in the backward pass. The same holds for the scores and the weighted sum of attention, for
    each visible key. Embedding look-ups count 0. `is_frozen` weights, below adapters, cost the same
    backward as forward.
    """
    context = config.context_length
    keys = sum(_keys_in_sight(context, window) for window in config.windows)
    attention = 2 * config.embedding_dim * keys / context
    dim = config.embedding_dim
    block = 2 * dim * dim + 2 * dim * config.kv_dim + _expert_weights(config)
    if config.num_experts is not None:
        more_experts = config.experts_per_token + config.use_shared_expert - 1
        block += more_experts * _expert_weights(config) + dim * config.num_experts
    weights = config.vocab_size * dim + config.num_layers * block
    return (4.0 if is_frozen else 6.0) * weights + 6.0 * attention


def _expert_weights(config: ModelConfig) -> int:
    num_matrices = {"swiglu": 3, "gelu": 2, "relu2": 2}[config.feed_forward]
    return num_matrices * config.embedding_dim * config.ffn_dim


def _keys_in_sight(context: int, window: int | None) -> float:
    """Count the pairs of a query and a visible key in one layer."""
    num_seen = context if window is None else min(window + 1, context)
    return num_seen * (num_seen + 1) / 2 + (context - num_seen) * num_seen
