"""The transformer on one page: token ids in, logits out.

A pre-norm decoder. DimensionGPT has RMSNorm, rotary positions, grouped-query attention in a sliding
window, SwiGLU, and an output layer tied to the embedding; `ModelConfig` names the alternatives.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimgpt.config import DropoutPlace, LoraConfig, ModelConfig
from dimgpt.model.attention import attend_to, attention
from dimgpt.model.cache import KVCache
from dimgpt.model.experts import Experts
from dimgpt.model.feed_forward import FEED_FORWARDS
from dimgpt.model.positions import POSITIONS, Rotation, positions_in, rotate


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
        if x.dtype == torch.float32:  # the same numbers in fewer calls
            return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)
        normed = F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).type_as(x)
        return (normed * self.weight).type_as(x)


def new_norm(config: ModelConfig) -> nn.Module:
    """Return RMSNorm, or the layer norm of Ba et al. 2016, https://arxiv.org/abs/1607.06450."""
    if config.norm == "rms":
        return RMSNorm(config.embedding_dim, config.norm_eps)
    return nn.LayerNorm(config.embedding_dim, eps=config.norm_eps, bias=config.use_biases)


def new_dropout(config: ModelConfig, place: DropoutPlace) -> nn.Module:
    """Return the dropout of a place; the identity if the config does not name the place.

    Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html.
    """
    has_dropout = config.dropout > 0 and place in config.dropout_places
    return nn.Dropout(config.dropout) if has_dropout else nn.Identity()


class Attention(nn.Module):
    """Project to heads, rotate by position, attend, project back.

    With `qk_norm`, queries and keys of each head are normalised before the rotation, as in Qwen 3
    (https://arxiv.org/abs/2505.09388); Henry et al. 2020, https://arxiv.org/abs/2010.04245.
    """

    def __init__(self, config: ModelConfig, layer: int, *, kernel: str) -> None:
        super().__init__()
        self.layer, self.kernel = layer, kernel
        self.head_dim, self.window_size = config.head_dim, config.windows[layer]
        dim, kv_dim, bias = config.embedding_dim, config.kv_dim, config.use_biases
        self.query = nn.Linear(dim, dim, bias=bias)
        self.key = nn.Linear(dim, kv_dim, bias=bias)
        self.value = nn.Linear(dim, kv_dim, bias=bias)
        self.output = nn.Linear(dim, dim, bias=bias)
        self.query_norm, self.key_norm = (
            RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()
            for _ in range(2)
        )
        self.dropout, self.attention_dropout = new_dropout(config, "qkv"), config.attention_dropout

    def project(
        self, x: Tensor, rotation: Rotation | None, token_values: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, T, H, D), keys and values (B, T, H_kv, D), rotated by position."""
        heads = (-1, self.head_dim)
        q = self.query_norm(self.dropout(self.query(x)).unflatten(-1, heads))
        k = self.key_norm(self.dropout(self.key(x)).unflatten(-1, heads))
        v = self.value(x)
        if token_values is not None:
            v = v + token_values.type_as(v)
        v = self.dropout(v).unflatten(-1, heads)
        if rotation is not None:
            q, k = rotate(q, k, rotation)
        return q, k, v

    def forward(
        self,
        x: Tensor,
        rotation: Rotation | None,
        cache: KVCache | None,
        token_values: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """Mix positions, (B, T, C) -> (B, T, C); `token_values`, (B, T, H_kv * D), are added."""
        q, k, v = self.project(x, rotation, token_values)
        if cache is not None:
            k, v, exist = cache.append(self.layer, k, v)  # (B, S, H_kv, D)
            if exist is not None:
                return self.output(attend_to(q, k, v, exist).flatten(-2))
        window, kernel = self.window_size, self.kernel
        dropout = self.attention_dropout if self.training else 0.0
        mixed = attention(
            q, k, v, window_size=window, kernel=kernel, dropout=dropout, documents=documents
        )
        return self.output(mixed.flatten(-2))


class Block(nn.Module):
    """Attention, then feed-forward, each added to the residual stream.

    With `use_stream_scalars`, the block reads a learned mix of the stream and of the embedding, as
    in https://github.com/KellerJordan/modded-nanogpt.
    """

    def __init__(self, config: ModelConfig, layer: int, *, kernel: str) -> None:
        super().__init__()
        self.attention_norm = new_norm(config)
        self.attention = Attention(config, layer, kernel=kernel)
        self.ffn_norm = new_norm(config)
        self.has_experts = config.num_experts is not None
        self.feed_forward = (
            Experts(config) if self.has_experts else FEED_FORWARDS[config.feed_forward](config)
        )
        self.dropout = new_dropout(config, "outputs")
        self.stream_dropout = new_dropout(config, "stream")
        self.stream_scalars = (
            nn.Parameter(torch.tensor([1.0, 0.0])) if config.use_stream_scalars else None
        )

    def forward(
        self,
        x: Tensor,
        embedding: Tensor,
        rotation: Rotation | None,
        cache: KVCache | None,
        token_values: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Transform the residual stream, (B, T, C), which began as `embedding`.

        Returns:
            The stream, (B, T, C), and the logits of the router of experts, (B, T, E), if it exists.
        """
        if self.stream_scalars is not None:
            old, first = self.stream_scalars
            x = old * x + first * embedding
        mixed = self.attention(self.attention_norm(x), rotation, cache, token_values, documents)
        x = self.stream_dropout(x) + self.dropout(mixed)
        mixed = self.feed_forward(self.ffn_norm(x))
        mixed, routing = mixed if self.has_experts else (mixed, None)
        return x + self.dropout(mixed), routing


class Transformer(nn.Module):
    """Logits of the next token after each position.

    Args:
        attention_kernel: One of `dimgpt.model.attention.KERNELS`, or `auto`.
    """

    def __init__(self, config: ModelConfig, *, attention_kernel: str = "auto") -> None:
        super().__init__()
        self.config = config
        self.lora = LoraConfig()
        """Settings of the adapters that `lora.py` adds."""
        shape = (config.vocab_size, config.embedding_dim)
        self.token_embedding = nn.Embedding.from_pretrained(torch.empty(shape), freeze=False)
        self.positions = POSITIONS[config.positions](config)
        self.dropout = new_dropout(config, "embedding")
        self.blocks = nn.ModuleList(
            Block(config, layer, kernel=attention_kernel) for layer in range(config.num_layers)
        )
        self.value_embeddings = nn.ModuleDict(
            {
                str(layer): nn.Embedding.from_pretrained(
                    torch.empty(config.vocab_size, config.kv_dim), freeze=False
                )
                for layer in config.value_embedding_layers
            }
        )
        self.final_norm = new_norm(config) if config.use_final_norm else nn.Identity()
        self.output_weight = None if config.tie_embeddings else nn.Parameter(torch.empty(shape))
        self.output_bias = (
            nn.Parameter(torch.zeros(config.vocab_size)) if config.use_biases else None
        )
        self.int8_output: nn.Module | None = None  # of `int8.py`
        if not self.token_embedding.weight.is_meta:  # the meta device has no values to initialise
            initialise(self)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Compute the logits (B, T, vocab_size) of ids (B, T), int64.

        Args:
            ids: Token ids; the caller must keep them in 0..vocab_size - 1.
            cache: Keys and values of the positions before `ids`; those of `ids` are added.

        Raises:
            ValueError: There are more than `context_length` positions, and no cache with `runs_on`.
        """
        return self.logits(self.hidden_states(ids, cache))

    def hidden_states(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Compute the input of the output layer, (B, T, C); arguments as in `forward`."""
        return self.hidden_states_and_routing(ids, cache)[0]

    def hidden_states_and_routing(
        self, ids: Tensor, cache: KVCache | None = None, documents: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Compute the hidden states, and the logits of each layer's router of experts.

        Args:
            ids: As in `forward`.
            cache: As in `forward`.
            documents: Lengths of the documents of each row, int64 (B, D), with sum T; each document
                is computed as if it were alone. `None` takes a row as one document, and is required
                with a cache.

        Returns:
            The input of the output layer, (B, T, C), and the routers' logits, (B, T, E) each,
            float32: one per layer of a model with experts, else none.
        """
        end = ids.shape[1] + (0 if cache is None else cache.length)
        if end > self.config.context_length and not (cache is not None and cache.runs_on):
            raise ValueError(
                f"the sequence has {end} positions: context_length is "
                f"{self.config.context_length}; crop it to its last tokens"
            )
        places: slice | Tensor = slice(0, end)
        if cache is not None:
            places = cache.next_places(ids.shape[1])
        elif documents is not None:
            places = positions_in(documents, end)
        x, rotation = self.positions(self.token_embedding(ids), places)
        x = embedding = self.dropout(x)
        values = {layer: table(ids) for layer, table in self.value_embeddings.items()}
        routing = []
        for layer, block in enumerate(self.blocks):
            x, logits = block(x, embedding, rotation, cache, values.get(str(layer)), documents)
            routing += [] if logits is None else [logits]
        if cache is not None:
            cache.advance(ids.shape[1])
        return self.final_norm(x), routing

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the output layer, (..., C) -> (..., vocab_size)."""
        if self.int8_output is not None:
            logits = self.int8_output(hidden)
        else:
            logits = F.linear(hidden, self.output_matrix, self.output_bias)
        cap = self.config.logit_cap  # Gemma 2, https://arxiv.org/abs/2408.00118, section 2
        return logits if cap is None else cap * torch.tanh(logits / cap)

    @property
    def output_matrix(self) -> Tensor:
        """The matrix of the output layer, (vocab_size, C); the embedding's if they are tied."""
        return self.token_embedding.weight if self.output_weight is None else self.output_weight

    def new_cache(self, batch_size: int, **options: bool) -> KVCache:
        """Return an empty cache for `batch_size` sequences; `options` are those of `KVCache`."""
        return KVCache(self.config, batch_size, like=self.token_embedding.weight, **options)

    @property
    def num_parameters(self) -> int:
        """Number of all weights; the tied embedding counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def num_trained_parameters(self) -> int:
        """Number of trained weights: all, or those of the adapters of `lora.py`."""
        return sum(weight.numel() for weight in self.parameters() if weight.requires_grad)


def initialise(model: Transformer) -> None:
    """Draw the initial weights by `init`, `init_std` and `scaled_outputs` of the config.

    Biases and the embeddings of values start at 0, norms at 1.
    """
    config = model.config
    outputs = ("attention.output.weight", "feed_forward.down.weight", "shared.down.weight")
    scaled = {"none": (), "attention": outputs[:1], "both": outputs, "zero": ()}
    zeros = outputs if config.scaled_outputs == "zero" else ()
    for name, weight in model.named_parameters():
        if name.endswith(zeros) or name.startswith("value_embeddings"):
            nn.init.zeros_(weight)
        elif name.endswith(scaled[config.scaled_outputs]):  # two additions to the stream per block
            nn.init.normal_(weight, std=config.init_std / math.sqrt(2 * config.num_layers))
        elif weight.dim() >= 2:  # a stack of experts has 3
            std = config.init_std if config.init == "fixed" else weight.shape[-1] ** -0.5
            nn.init.normal_(weight, std=std)
        elif name.endswith("bias"):
            nn.init.zeros_(weight)
