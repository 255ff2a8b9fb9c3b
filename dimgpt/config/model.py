"""Settings of the model: its shape, sampling and export."""

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
"""Fields of `ModelConfig` on which no weight depends."""
_LONGEST_CONTEXT = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Shape of the transformer: everything that its weights depend on, and its dropout."""

    vocab_size: PositiveInt = 32_000
    """Number of tokens, special tokens included."""
    context_length: PositiveInt = 512
    """Longest sequence, in tokens."""
    window_size: PositiveInt | None = 256
    """Tokens before itself that a position attends to; `None` is full causal attention."""
    attention_pattern: tuple[AttentionSpan, ...] = ("window",)
    """Repeated over the layers from the first: `window` uses the window, `full` does not."""
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
    """`outputs`: outputs of attention and feed-forward; `qkv`: queries, keys, values; `stream`: the
    residual stream to which attention's output is added."""
    attention_dropout: Ratio = 0.0
    """Probability of dropping an attention weight while training, in 0..1."""
    norm: Literal["rms", "layer"] = "rms"
    """`rms` divides by the root mean square; `layer` also subtracts the mean."""
    positions: Literal["rotary", "sinusoidal"] = "rotary"
    """`rotary` rotates queries and keys; `sinusoidal` adds fixed waves to the embedding."""
    qk_norm: bool = False
    """Normalise the queries and keys of each head, with a learned weight, before the rotation."""
    feed_forward: Literal["swiglu", "gelu", "relu2"] = "swiglu"
    """`swiglu` has a gate; `gelu` is the two-layer network of GPT-2; `relu2` squares its ReLU."""
    num_experts: PositiveInt | None = None
    """Feed-forwards of width `ffn_dim` in each layer; `None` means one, without a router."""
    experts_per_token: PositiveInt = 2
    """Experts per token: the router chooses the most probable ones."""
    use_shared_expert: bool = False
    """Add an expert that computes every token."""
    use_biases: bool = False
    """Biases in every linear layer, the output layer included, and in layer norms."""
    use_final_norm: bool = True
    """Normalise once more before the output layer."""
    tie_embeddings: bool = True
    """The output layer uses the matrix of the embedding."""
    logit_cap: PositiveFloat | None = None
    """Smooth limit of the logits, by tanh; `None` does not limit them."""
    use_stream_scalars: bool = False
    """Each block reads a learned mix of the stream and of the embedding."""
    use_value_embeddings: bool = False
    """Every second layer, including the last, adds an embedding of the token to its values."""
    init: Literal["fixed", "fan_in"] = "fixed"
    """Standard deviation of initial weights: `init_std` (`fixed`) or 1 / sqrt(inputs)."""
    init_std: PositiveFloat = 0.02
    """Standard deviation of the initial weights, before `scaled_outputs`."""
    scaled_outputs: Literal["none", "attention", "both", "zero"] = "attention"
    """Outputs whose initial weights are divided by sqrt(2 * num_layers); `zero` sets them to 0."""

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
        """The `window_size` of each layer; `None` means all earlier positions."""
        spans = itertools.islice(itertools.cycle(self.attention_pattern), self.num_layers)
        return tuple(self.window_size if span == "window" else None for span in spans)

    @property
    def can_run_on(self) -> bool:
        """Whether a text may exceed the context: rotary positions, and only shorter windows."""
        windows = (self.context_length if window is None else window for window in self.windows)
        return self.positions == "rotary" and max(windows) < self.context_length

    @property
    def value_embedding_layers(self) -> tuple[int, ...]:
        """The layers with value embeddings: the last one and every second before it."""
        first = (self.num_layers - 1) % 2
        return tuple(range(first, self.num_layers, 2)) if self.use_value_embeddings else ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """Settings for choosing the next token."""

    temperature: NotNegativeFloat = 1.0
    """Divides the log-probabilities; 0 always takes the most probable token."""
    top_p: Ratio = 1.0
    """Keep the most probable tokens whose sum first reaches this, in 0..1."""
    top_k: PositiveInt | None = None
    """Keep this many of the most probable tokens."""
    min_p: Ratio = 0.0
    """Keep tokens with at least this share, in 0..1, of the largest probability."""
    no_repeat_strength: NotNegativeFloat = 0.0
    """DimensionGPT's repetition penalty, which decreases with distance; 0 is off."""
    repetition_penalty: PositiveFloat = 1.0
    """The usual penalty (CTRL) on tokens that occurred; 1 is off."""
    top_repeat_penalty: NotNegativeFloat = 0.0
    """toyGPT's penalty: if the most probable token occurred already, divide its probability by 10
    to this power; 0 is off."""
    max_new_tokens: PositiveInt = 512
    """Tokens after which an answer ends."""
    stop_strings: tuple[str, ...] = ()
    """Texts that end an answer; it stops before the first of them."""
    beyond_context: Literal["crop", "run_on"] | None = None
    """When the context is full, `crop` recomputes its last tokens for every new token, as
    DimensionGPT does. `run_on` continues at the same cost; it needs a window in every layer. `None`
    runs on in a chat if possible, and crops otherwise."""
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
        """Whether the choice depends on earlier tokens through a penalty."""
        return bool(
            self.no_repeat_strength or self.repetition_penalty != 1 or self.top_repeat_penalty
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Target program and precision of an export."""

    target: ExportTarget
    """Program that will open it: `pt` is the original DimensionGPT, `safetensors` is dimgpt."""
    dtype: ExportDtype = "f32"
    """Precision of the weights; `q8_0`, blocks of 8 bits, is for `gguf` only."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.dtype == "q8_0" and self.target != "gguf":
            raise ValueError(f"dtype is 'q8_0': {self.target} stores f32, f16 or bf16; choose one")
        if self.dtype != "f32" and self.target == "pt":
            raise ValueError(f"dtype is {self.dtype!r}: pt stores f32, as the original does")
