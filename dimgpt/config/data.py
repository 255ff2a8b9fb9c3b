"""From text to token files: sources, conversations, and what is done with them."""

from dataclasses import dataclass, field

from dimgpt.config.rules import (
    require_file_name,
    require_not_negative,
    require_positive,
    require_ratio,
)


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
        require_file_name(self, "name")
        require_positive(self, "multiplier")


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
        require_file_name(self, "name")
        require_positive(self, "ratio")
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
            require_positive(self, name)
        for name in ("min_document_characters", "seed"):
            require_not_negative(self, name)
        for name in ("validation_ratio", "instruction_weight"):
            require_ratio(self, name)
        if self.num_workers is not None:
            require_positive(self, "num_workers")
        for group in (self.sources, self.conversations):
            names = [source.name for source in group]
            if len(set(names)) < len(names):
                raise ValueError(f"source names are {names}: each must be unique; rename one")
