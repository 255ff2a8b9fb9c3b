"""The shape of the transformer: everything that its weights depend on."""

from dataclasses import dataclass
from typing import Literal

from dimgpt.config.rules import (
    require_choices,
    require_none_or_positive,
    require_positive,
    require_ratio,
)

_LONGEST_CONTEXT = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Shape of the transformer: everything that its weights depend on."""

    vocab_size: int = 32_000
    """Number of tokens, special tokens included."""
    context_length: int = 512
    """Longest sequence, in tokens."""
    window_size: int | None = 256
    """Tokens that a position looks back on besides itself; `None` is full causal attention."""
    embedding_dim: int = 1024
    """Width of the residual stream."""
    num_layers: int = 16
    """Number of blocks."""
    num_heads: int = 16
    """Query heads."""
    num_kv_heads: int = 4
    """Key and value heads; each serves `num_heads / num_kv_heads` query heads."""
    ffn_dim: int = 2730
    """Width inside the feed-forward, int(2/3 * 4 * embedding_dim) in the published model."""
    norm_eps: float = 1e-5
    """Added to the mean square before its root."""
    rope_theta: float = 10_000.0
    """Base of the rotary frequencies."""
    dropout: float = 0.0
    """Probability, in 0..1."""
    norm: Literal["rms", "layer"] = "rms"
    """`rms` divides by the root mean square; `layer` subtracts the mean before."""
    positions: Literal["rotary", "sinusoidal"] = "rotary"
    """`rotary` turns queries and keys; `sinusoidal` adds fixed waves to the embedding."""
    feed_forward: Literal["swiglu", "gelu"] = "swiglu"
    """`swiglu` has a gate; `gelu` is the two-layer network of GPT-2."""
    use_biases: bool = False
    """Biases in every linear layer, the output layer included, and in layer norms."""
    use_final_norm: bool = True
    """Normalise once more before the output layer."""
    tie_embeddings: bool = True
    """The output layer uses the matrix of the embedding."""
    init: Literal["fixed", "fan_in"] = "fixed"
    """Initial weights deviate by `init_std` (`fixed`) or by 1 / sqrt(inputs) (`fan_in`)."""
    init_std: float = 0.02
    """Standard deviation of the initial weights, of scaled outputs before their scaling."""
    scaled_outputs: Literal["none", "attention", "both"] = "attention"
    """Which layers that write to the residual stream start smaller by sqrt(2 * num_layers)."""

    def __post_init__(self) -> None:
        require_choices(self)
        require_positive(self, "vocab_size", "context_length", "embedding_dim", "num_layers")
        require_positive(self, "num_heads", "num_kv_heads", "ffn_dim")
        require_positive(self, "norm_eps", "rope_theta", "init_std")
        require_none_or_positive(self, "window_size")
        require_ratio(self, "dropout")
        if self.context_length > _LONGEST_CONTEXT:
            raise ValueError(
                f"context_length is {self.context_length}: it must be at most "
                f"{_LONGEST_CONTEXT:,}, since the positions are tables; lower it"
            )
        if self.embedding_dim % (2 * self.num_heads):
            raise ValueError(
                f"embedding_dim is {self.embedding_dim}: it must be a multiple of 2 * num_heads "
                f"({2 * self.num_heads}), since rotary embeddings turn pairs of channels; "
                "change embedding_dim or num_heads"
            )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads is {self.num_kv_heads}: it must divide num_heads "
                f"({self.num_heads}); take 1, num_heads, or a divisor"
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.embedding_dim // self.num_heads
