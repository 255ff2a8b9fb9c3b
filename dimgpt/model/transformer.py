"""The transformer on one page: token ids in, logits out.

A pre-norm decoder with RMSNorm, rotary positions, grouped-query attention in a sliding window,
SwiGLU, and an output layer tied to the embedding. It knows no text, no path and no device of its
own, and it refuses what does not fit its context instead of cropping it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimgpt.config import ModelConfig
from dimgpt.model.attention import attention
from dimgpt.model.feed_forward import FeedForward
from dimgpt.model.kv_cache import KVCache
from dimgpt.model.rope import apply_rope, rope_table


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


class Attention(nn.Module):
    """Project to heads, turn by position, attend, project back."""

    def __init__(self, config: ModelConfig, *, kernel: str) -> None:
        super().__init__()
        self.head_dim, self.window_size, self.kernel = config.head_dim, config.window_size, kernel
        kv_dim = config.num_kv_heads * config.head_dim
        self.query = nn.Linear(config.embedding_dim, config.embedding_dim, bias=False)
        self.key = nn.Linear(config.embedding_dim, kv_dim, bias=False)
        self.value = nn.Linear(config.embedding_dim, kv_dim, bias=False)
        self.output = nn.Linear(config.embedding_dim, config.embedding_dim, bias=False)

    def forward(
        self, x: Tensor, *, cos: Tensor, sin: Tensor, layer: int, cache: KVCache | None
    ) -> Tensor:
        """Mix positions, (B, T, C) -> (B, T, C)."""
        heads = (-1, self.head_dim)
        q = apply_rope(self.query(x).unflatten(-1, heads), cos, sin)  # (B, T, H, D)
        k = apply_rope(self.key(x).unflatten(-1, heads), cos, sin)  # (B, T, H_kv, D)
        v = self.value(x).unflatten(-1, heads)
        if cache is not None:
            k, v = cache.append(layer, k, v)  # (B, S, H_kv, D)
        mixed = attention(q, k, v, window_size=self.window_size, kernel=self.kernel)
        return self.output(mixed.flatten(-2))


class Block(nn.Module):
    """Attention, then feed-forward, each added to the stream it reads."""

    def __init__(self, config: ModelConfig, *, kernel: str) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.embedding_dim, config.norm_eps)
        self.attention = Attention(config, kernel=kernel)
        self.ffn_norm = RMSNorm(config.embedding_dim, config.norm_eps)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, *, cos: Tensor, sin: Tensor, layer: int, cache: KVCache | None
    ) -> Tensor:
        """Transform the residual stream, (B, T, C) -> (B, T, C)."""
        mixed = self.attention(self.attention_norm(x), cos=cos, sin=sin, layer=layer, cache=cache)
        x = x + self.dropout(mixed)
        return x + self.dropout(self.feed_forward(self.ffn_norm(x)))


class Transformer(nn.Module):
    """Logits of the next token after each position.

    Args:
        config: Shape of the model.
        attention_kernel: One of `dimgpt.model.attention.KERNELS`, or `auto`.
    """

    rope_cos: Tensor
    rope_sin: Tensor

    def __init__(self, config: ModelConfig, *, attention_kernel: str = "auto") -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.embedding_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(config, kernel=attention_kernel) for _ in range(config.num_layers)
        )
        self.final_norm = RMSNorm(config.embedding_dim, config.norm_eps)
        cos, sin = rope_table(config.context_length, config.head_dim, config.rope_theta)
        self.register_buffer("rope_cos", cos, persistent=False)
        self.register_buffer("rope_sin", sin, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        std = self.config.init_std
        for name, weight in self.named_parameters():
            if name.endswith("attention.output.weight"):  # two additions to the stream per block
                nn.init.normal_(weight, std=std / math.sqrt(2 * self.config.num_layers))
            elif weight.dim() == 2:
                nn.init.normal_(weight, std=std)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Compute the logits (B, T, vocab_size) of ids (B, T), int64.

        Args:
            ids: Token ids; the caller makes sure that they lie in 0..vocab_size - 1.
            cache: Holds the positions before `ids`, which are added to it.

        Raises:
            ValueError: More positions than the context holds.
        """
        return F.linear(self.hidden_states(ids, cache), self.token_embedding.weight)

    def hidden_states(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Compute what the output layer reads, (B, T, C); arguments as in `forward`."""
        start = 0 if cache is None else cache.length
        end = start + ids.shape[1]
        if end > self.config.context_length:
            raise ValueError(
                f"the sequence has {end} positions: context_length is "
                f"{self.config.context_length}; crop it to its last tokens"
            )
        cos, sin = self.rope_cos[start:end], self.rope_sin[start:end]
        x = self.dropout(self.token_embedding(ids))
        for layer, block in enumerate(self.blocks):
            x = block(x, cos=cos, sin=sin, layer=layer, cache=cache)
        if cache is not None:
            cache.length = end
        return self.final_norm(x)

    def new_cache(self, batch_size: int) -> KVCache:
        """Return an empty cache for `batch_size` sequences, on the model's device."""
        weight = self.token_embedding.weight
        return KVCache(
            num_layers=self.config.num_layers,
            batch_size=batch_size,
            num_positions=self.config.context_length,
            num_kv_heads=self.config.num_kv_heads,
            head_dim=self.config.head_dim,
            device=weight.device,
            dtype=weight.dtype,
        )

    @property
    def num_parameters(self) -> int:
        """Trainable numbers; the tied embedding counts once."""
        return sum(parameter.numel() for parameter in self.parameters())
