"""The model: its shape, how it chooses tokens, and what it is exported for."""

import itertools
from dataclasses import dataclass
from typing import Literal

from dimgpt.config.rules import (
    NotNegativeFloat,
    NotNegativeInt,
    PositiveFloat,
    PositiveInt,
    Ratio,
    check_fields,
)

AttentionSpan = Literal["window", "full"]
DropoutPlace = Literal["embedding", "outputs", "qkv", "stream"]
ExportTarget = Literal["transformers", "gguf", "safetensors", "pt"]
ExportDtype = Literal["f32", "f16", "bf16", "q8_0"]
DROPOUT_FIELDS = ("dropout", "dropout_places", "attention_dropout")
"""Those of `ModelConfig` on which no weight depends."""
_LONGEST_CONTEXT = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Shape of the transformer: everything that its weights depend on, and its dropout."""

    vocab_size: PositiveInt = 32_000
    """Number of tokens, special tokens included."""
    context_length: PositiveInt = 512
    """Longest sequence, in tokens."""
    window_size: PositiveInt | None = 256
    """Tokens that a position looks back on besides itself; `None` is full causal attention."""
    attention_pattern: tuple[AttentionSpan, ...] = ("window",)
    """Which layers have the window, from the first on, repeated; `full` ones see all before."""
    embedding_dim: PositiveInt = 1024
    """Width of the residual stream."""
    num_layers: PositiveInt = 16
    """Number of blocks."""
    num_heads: PositiveInt = 16
    """Query heads."""
    num_kv_heads: PositiveInt = 4
    """Key and value heads; each serves `num_heads / num_kv_heads` query heads."""
    ffn_dim: PositiveInt = 2730
    """Width inside the feed-forward, int(2/3 * 4 * embedding_dim) in the published model."""
    norm_eps: PositiveFloat = 1e-5
    """Added to the mean square before its root."""
    rope_theta: PositiveFloat = 10_000.0
    """Base of the rotary frequencies."""
    dropout: Ratio = 0.0
    """Probability at `dropout_places` while training, in 0..1."""
    dropout_places: tuple[DropoutPlace, ...] = ("embedding", "outputs")
    """`outputs`: what attention and feed-forward add to the stream; `qkv`: queries, keys, values;
    `stream`: what attention's output is added to, not what it reads."""
    attention_dropout: Ratio = 0.0
    """Probability of hiding a position from a query while training, in 0..1."""
    norm: Literal["rms", "layer"] = "rms"
    """`rms` divides by the root mean square; `layer` subtracts the mean before."""
    positions: Literal["rotary", "sinusoidal"] = "rotary"
    """`rotary` turns queries and keys; `sinusoidal` adds fixed waves to the embedding."""
    qk_norm: bool = False
    """Normalise the queries and keys of each head, with a learned weight, before they turn."""
    feed_forward: Literal["swiglu", "gelu", "relu2"] = "swiglu"
    """`swiglu` has a gate; `gelu` is the two-layer network of GPT-2; `relu2` squares its ReLU."""
    num_experts: PositiveInt | None = None
    """Feed-forwards of width `ffn_dim` in each layer; `None` has one, and no router."""
    experts_per_token: PositiveInt = 2
    """Experts that the router chooses for a token, the most probable ones."""
    use_shared_expert: bool = False
    """One more expert, which computes every token."""
    use_biases: bool = False
    """Biases in every linear layer, the output layer included, and in layer norms."""
    use_final_norm: bool = True
    """Normalise once more before the output layer."""
    tie_embeddings: bool = True
    """The output layer uses the matrix of the embedding."""
    logit_cap: PositiveFloat | None = None
    """Bound of the logits, which approach it smoothly; `None` leaves them as they are."""
    use_stream_scalars: bool = False
    """Each block reads a learned mix of the stream and of the embedding."""
    use_value_embeddings: bool = False
    """Every second layer, the last one included, adds an embedding of the token to its values."""
    init: Literal["fixed", "fan_in"] = "fixed"
    """Initial weights deviate by `init_std` (`fixed`) or by 1 / sqrt(inputs) (`fan_in`)."""
    init_std: PositiveFloat = 0.02
    """Standard deviation of the initial weights, of scaled outputs before their scaling."""
    scaled_outputs: Literal["none", "attention", "both", "zero"] = "attention"
    """Which layers that write to the stream start smaller by sqrt(2 * num_layers); or all at 0."""

    def __post_init__(self) -> None:
        check_fields(self)
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
        if not 0 < len(self.attention_pattern) <= self.num_layers:
            raise ValueError(
                f"attention_pattern has {len(self.attention_pattern)} layers: it must have 1 to "
                f"num_layers ({self.num_layers}); change one of the two"
            )
        self._check_experts()

    def _check_experts(self) -> None:
        if self.num_experts is None:
            if self.use_shared_expert:
                raise ValueError(
                    "use_shared_expert is True and num_experts None: a shared expert stands beside "
                    "others; set num_experts, or leave it out"
                )
        elif self.experts_per_token > self.num_experts:
            raise ValueError(
                f"experts_per_token is {self.experts_per_token}: it must be at most num_experts "
                f"({self.num_experts}); lower it, or raise num_experts"
            )
        elif self.use_biases:
            raise ValueError(
                f"use_biases is True and num_experts {self.num_experts}: experts have no biases; "
                "leave one of the two out"
            )

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.embedding_dim // self.num_heads

    @property
    def kv_dim(self) -> int:
        """Width of the keys, and of the values, of all heads."""
        return self.num_kv_heads * self.head_dim

    @property
    def windows(self) -> tuple[int | None, ...]:
        """The `window_size` of each layer; `None` sees all positions before."""
        spans = itertools.islice(itertools.cycle(self.attention_pattern), self.num_layers)
        return tuple(self.window_size if span == "window" else None for span in spans)

    @property
    def can_run_on(self) -> bool:
        """Whether a text may be longer than the context: no position sees as far back as that."""
        windows = (self.context_length if window is None else window for window in self.windows)
        return self.positions == "rotary" and max(windows) < self.context_length

    @property
    def value_embedding_layers(self) -> tuple[int, ...]:
        """The layers that have an embedding of their own, the last one and every second before."""
        first = (self.num_layers - 1) % 2
        return tuple(range(first, self.num_layers, 2)) if self.use_value_embeddings else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How the next token is chosen."""

    temperature: NotNegativeFloat = 1.0
    """Divides the log-probabilities; 0 takes the most probable token."""
    top_p: Ratio = 1.0
    """Keep the most probable tokens whose sum first reaches this, in 0..1."""
    top_k: PositiveInt | None = None
    """Keep this many of the most probable tokens."""
    min_p: Ratio = 0.0
    """Keep tokens that are at least this times as probable as the most probable one, in 0..1."""
    no_repeat_strength: NotNegativeFloat = 0.0
    """DimensionGPT's penalty, fading with distance over the context; 0 is off."""
    repetition_penalty: PositiveFloat = 1.0
    """The field's penalty on tokens that occurred; 1 is off."""
    top_repeat_penalty: NotNegativeFloat = 0.0
    """toyGPT's penalty: where the most probable token occurred, divide its probability by 10 to
    this power; 0 is off."""
    max_new_tokens: PositiveInt = 512
    """Tokens after which an answer ends."""
    stop_strings: tuple[str, ...] = ()
    """Texts that end an answer: it stops before the first of them."""
    beyond_context: Literal["crop", "run_on"] | None = None
    """Where the context is full: `crop` reads its last tokens anew for every token, as DimensionGPT
    does; `run_on` goes on counting positions, at the same cost, where every layer has a window.
    `None` runs on in a chat where that is possible, and crops elsewhere."""
    seed: NotNegativeInt | None = None
    """Seed of the draws; `None` draws a fresh one."""
    use_compile: bool = False
    """`torch.compile` the step that adds a token: it waits up to a minute once, and is faster from
    then on."""

    def __post_init__(self) -> None:
        check_fields(self)
        if "" in self.stop_strings:
            raise ValueError("stop_strings holds '': every text does; remove it")

    @property
    def has_penalty(self) -> bool:
        """Whether the next token depends on the tokens so far by more than the model's logits."""
        return bool(
            self.no_repeat_strength or self.repetition_penalty != 1 or self.top_repeat_penalty
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Which program an export is for, and its precision."""

    target: ExportTarget
    """Program that is to open it: `pt` is the original DimensionGPT, `safetensors` is dimgpt."""
    dtype: ExportDtype = "f32"
    """Precision of the weights; `q8_0`, blocks of 8 bits, is for `gguf` alone."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.dtype == "q8_0" and self.target != "gguf":
            raise ValueError(f"dtype is 'q8_0': {self.target} stores f32, f16 or bf16; choose one")
        if self.dtype != "f32" and self.target == "pt":
            raise ValueError(f"dtype is {self.dtype!r}: pt stores f32, as the original does")
