"""Every setting of the project, as frozen dataclasses that check themselves.

A setting is written once, in a notebook cell, on the command line or in `presets.py`, and travels
down as a value: no other module reads the environment or keeps state. The defaults are those of the
published DimensionGPT-0.2B. This file computes nothing and opens nothing; `settings.py` turns its
classes into JSON and back.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Precision = Literal["auto", "fp32", "bf16", "fp16"]


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
    init_std: float = 0.02
    """Standard deviation of the initial weights."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "embedding_dim", "num_layers", "num_heads"):
            _require_positive(self, name)
        for name in ("num_kv_heads", "ffn_dim", "norm_eps", "rope_theta", "init_std"):
            _require_positive(self, name)
        if self.window_size is not None:
            _require_positive(self, "window_size")
        _require_ratio(self, "dropout")
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


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """One training run: batch, optimizer, schedule, and how often things happen."""

    batch_size: int = 16
    """Sequences per forward pass."""
    accumulation_steps: int = 64
    """Forward passes per optimizer step."""
    learning_rate: float = 6e-4
    """Peak, reached at the end of the warm-up."""
    min_learning_rate: float = 6e-5
    """Where the cosine ends and stays."""
    warmup_steps: int = 2_000
    """Steps of linear rise from 0."""
    decay_steps: int = 100_000
    """Steps of cosine after the warm-up."""
    max_steps: int = 100_000
    """Step at which the run ends."""
    adam_betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's two moments, in 0..1."""
    adam_eps: float = 1e-5
    """Added to AdamW's denominator."""
    weight_decay: float = 0.1
    """Decoupled decay, on matrices only."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm."""
    validation_interval: int = 50
    """Steps between validations."""
    validation_batches: int = 64
    """Batches of a validation, the same ones each time."""
    checkpoint_interval: int = 500
    """Steps between checkpoints."""
    sample_interval: int = 1_000
    """Steps between samples of the fixed prompt."""
    metrics_decay: float = 0.9
    """Decay of the moving averages that are shown, in 0..1."""
    precision: Precision = "auto"
    """`auto`: bf16 where the device computes in it, fp16 with loss scaling on older cards."""
    use_compile: bool | None = None
    """`torch.compile` the model; `None` does so on CUDA only."""
    seed: int = 0
    """Every batch is a pure function of (seed, step)."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulation_steps", "learning_rate", "max_steps", "adam_eps"):
            _require_positive(self, name)
        for name in ("max_grad_norm", "validation_interval", "validation_batches"):
            _require_positive(self, name)
        for name in ("checkpoint_interval", "sample_interval", "decay_steps"):
            _require_positive(self, name)
        for name in ("warmup_steps", "weight_decay", "min_learning_rate", "seed"):
            _require_not_negative(self, name)
        _require_ratio(self, "metrics_decay")
        _require_choice(self, "precision", get_args(Precision))
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate is {self.min_learning_rate}: it must not exceed learning_rate "
                f"({self.learning_rate}); lower it"
            )
        if not all(0 <= beta < 1 for beta in self.adam_betas):
            raise ValueError(f"adam_betas is {self.adam_betas}: both must lie in [0, 1)")

    @property
    def sequences_per_step(self) -> int:
        """Sequences per optimizer step."""
        return self.batch_size * self.accumulation_steps


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """One source of documents."""

    name: str
    """Folder name of its token files."""
    path: str
    """A local file or folder, `hf://datasets/owner/name`, or `demo://stories/20000`."""
    group: str = ""
    """Row of the mixture table it belongs to."""
    multiplier: float = 1.0
    """A document of this source is drawn `multiplier` times as often as its size says."""
    text_column: str = "text"
    """Column that holds the text."""
    hub_config: str | None = None
    """Configuration of a hub data set."""
    hub_split: str = "train"
    """Split of a hub data set."""

    def __post_init__(self) -> None:
        _require_file_name(self, "name")
        _require_positive(self, "multiplier")


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationSourceConfig:
    """One group of conversations, with the system prompts that may precede them."""

    name: str
    """Folder name of its token files."""
    path: str
    """A local file or folder, `hf://datasets/owner/name`, or `demo://conversations/9000`."""
    ratio: float = 1.0
    """Share of the conversations drawn from this group, in 0..1."""
    system_prompts_path: str | None = None
    """Where this group's own system prompts are, in the same forms as `path`."""
    system_prompt_ratios: dict[str, float] = field(default_factory=dict)
    """Group whose system prompts are drawn -> share, in 0..1; the rest has none."""
    hub_config: str | None = None
    """Configuration of a hub data set."""
    system_prompts_hub_config: str | None = None
    """Configuration that holds the system prompts."""
    hub_split: str = "train"
    """Split of a hub data set."""

    def __post_init__(self) -> None:
        _require_file_name(self, "name")
        _require_positive(self, "ratio")
        total = sum(self.system_prompt_ratios.values())
        if not (total <= 1 + 1e-9 and min(self.system_prompt_ratios.values(), default=0) >= 0):
            raise ValueError(
                f"system_prompt_ratios of {self.name!r} are {self.system_prompt_ratios}: each must "
                "be at least 0 and their sum at most 1; what is left has no system prompt"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """From text to token files."""

    sources: tuple[SourceConfig, ...] = ()
    """Documents to pretrain on."""
    conversations: tuple[ConversationSourceConfig, ...] = ()
    """Conversations to fine-tune on."""
    vocab_size: int = 32_000
    """Tokens of the vocabulary, special tokens included."""
    vocabulary_characters: int = 300_000_000
    """Characters of the mixture that the vocabulary is trained on."""
    use_conversations_in_vocabulary: bool = False
    """Train the vocabulary on the conversations as well; the published one saw documents only."""
    min_document_characters: int = 64
    """Shorter documents (stripped, before cleaning) are dropped."""
    validation_ratio: float = 0.001
    """Share of the documents kept for validation, in 0..1."""
    instruction_weight: float = 0.1
    """Loss weight, in 0..1, of what the model does not say itself; 0 in validation."""
    compose_accents: bool = False
    """Compose accents (Unicode NFC) before cleaning; the published model did not."""
    num_workers: int | None = None
    """Processes that clean and encode; `None` takes one per core."""
    seed: int = 0
    """Seed of the vocabulary sample and of the splits."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "vocabulary_characters"):
            _require_positive(self, name)
        for name in ("min_document_characters", "seed"):
            _require_not_negative(self, name)
        for name in ("validation_ratio", "instruction_weight"):
            _require_ratio(self, name)
        if self.num_workers is not None:
            _require_positive(self, "num_workers")
        for group in (self.sources, self.conversations):
            names = [source.name for source in group]
            if len(set(names)) < len(names):
                raise ValueError(f"source names are {names}: each must be unique; rename one")


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How the next token is chosen."""

    temperature: float = 1.0
    """Divides the log-probabilities; 0 takes the most probable token."""
    top_p: float = 1.0
    """Keep the most probable tokens whose sum first reaches this, in 0..1."""
    top_k: int | None = None
    """Keep this many of the most probable tokens."""
    no_repeat_strength: float = 0.0
    """DimensionGPT's penalty, fading with distance over the context; 0 is off."""
    repetition_penalty: float = 1.0
    """The field's penalty on tokens that occurred; 1 is off."""
    max_new_tokens: int = 512
    """Tokens after which an answer ends."""
    seed: int | None = None
    """Seed of the draws; `None` draws a fresh one."""

    def __post_init__(self) -> None:
        for name in ("temperature", "no_repeat_strength"):
            _require_not_negative(self, name)
        for name in ("repetition_penalty", "max_new_tokens"):
            _require_positive(self, name)
        _require_ratio(self, "top_p")
        if self.top_k is not None:
            _require_positive(self, "top_k")
        if self.seed is not None:
            _require_not_negative(self, "seed")


def _require_positive(config: Any, name: str) -> None:
    value = getattr(config, name)
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} is {value}: it must be a positive number")


def _require_not_negative(config: Any, name: str) -> None:
    value = getattr(config, name)
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} is {value}: it must be 0 or more")


def _require_ratio(config: Any, name: str) -> None:
    value = getattr(config, name)
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}: it must lie in 0..1")


def _require_choice(config: Any, name: str, choices: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if value not in choices:
        raise ValueError(f"{name} is {value!r}: it must be one of {', '.join(choices)}")


def _require_file_name(config: Any, name: str) -> None:
    value = getattr(config, name)
    if not value or any(character in value for character in '/\\:*?"<>|') or value.startswith("."):
        raise ValueError(f"{name} is {value!r}: it names a folder; use letters, digits, - and _")
