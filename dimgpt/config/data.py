"""Settings of the data: sources, conversations, filters, and the vocabulary."""

import re
import string
from dataclasses import dataclass, field
from typing import Literal

from dimgpt.config.rules import (
    FileName,
    NotNegativeInt,
    PositiveFloat,
    PositiveInt,
    Ratio,
    check_fields,
)
from dimgpt.config.training import Packing


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """One source of documents."""

    name: FileName
    """Folder name of its token files."""
    path: str
    """A local file or folder, `hf://datasets/owner/name`, or `demo://stories/20000`."""
    group: str = ""
    """Row of the mixture table it belongs to."""
    multiplier: PositiveFloat = 1.0
    """Factor on how often its documents are drawn, relative to the size of the source."""
    text_column: str = "text"
    """Column that holds the text."""
    text_template: str | None = None
    """Text made of several columns, such as `{title}\\n\\n{text}`, instead of `text_column`."""
    hub_config: str | None = None
    """Configuration of a hub data set."""
    hub_split: str = "train"
    """Split of a hub data set."""
    files: str | None = None
    """Files of a hub data set instead of a configuration and a split: a pattern for their paths
    such as `default/*/*.parquet`, where `*` matches any characters, `/` too."""
    revision: str | None = None
    """Commit, tag or branch of a hub data set; `None` takes today's, which the manifest records."""
    licence: str = ""
    """The publisher's licence, for information only."""
    expected_bytes: PositiveInt | None = None
    """Estimated UTF-8 bytes of its text, for mixture weights and disk space before reading."""
    max_bytes: PositiveInt | None = None
    """Read complete files in order, up to about this many bytes of text; `None` reads all."""
    cleaning: Literal["none", "detokenize"] = "none"
    """Rule before the general cleaning: `detokenize` removes the spaces in ` , ` and `( a )`."""

    def __post_init__(self) -> None:
        check_fields(self)
        is_split = self.hub_config is not None or self.hub_split != "train"
        if self.files is not None and (is_split or not self.path.startswith("hf://")):
            raise ValueError(
                f"files is {self.files!r} and path {self.path!r}: files names those of a data set "
                "hf://datasets/owner/name, in place of hub_config and hub_split; remove one"
            )
        if self.text_template is not None and self.text_column != "text":
            raise ValueError(
                f"text_template is {self.text_template!r} and text_column {self.text_column!r}: "
                "keep one of them; the template names its columns in braces"
            )
        if not all(self.text_columns):
            raise ValueError("text_column is '': it must be the name of a column")

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Columns that form its text, each once, in order.

        Raises:
            ValueError: The template names no column, or has more than plain names in its braces.
        """
        if self.text_template is None:
            return (self.text_column,)
        refusal = (
            f"text_template is {self.text_template!r}: write column names in braces, such as "
            "'{title}: {text}', and {{ or }} for a brace"
        )
        try:
            parts = list(string.Formatter().parse(self.text_template))
        except ValueError as error:
            raise ValueError(f"{refusal} ({error})") from None
        fields = [field for _, *field in parts if field[0] is not None]
        names = [f"{name}" for name, _, _ in fields]
        is_plain = all(re.fullmatch(r"[^.\[\]]+", name) for name in names)
        if not names or not is_plain or any(field[1:] != ["", None] for field in fields):
            raise ValueError(refusal)
        return tuple(dict.fromkeys(names))


_PAIRS = Literal["prompt_completion", "prompt_response", "Alpaca", "Dolly"]
_MORE_PAIRS = Literal["user_assistant", "question_answer"]
_Form = Literal["DimensionGPT", "ShareGPT", "messages", "message_rows", _PAIRS, _MORE_PAIRS]


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationSourceConfig:
    """One group of conversations, with the system prompts that may precede them."""

    name: FileName
    """Folder name of its token files."""
    path: str
    """A local file or folder, `hf://datasets/owner/name`, `demo://conversations/9000` or
    `demo://small-talk/9000`."""
    form: _Form | None = None
    """Form of its records, see docs/conversations.md; `None` recognises it from the first record
    of each file, and logs it."""
    ratio: PositiveFloat = 1.0
    """Share of the conversations drawn from this group, in 0..1."""
    system_prompts_path: str | None = None
    """Place of this group's own system prompts, in the same forms as `path`."""
    system_prompt_ratios: dict[str, float] = field(default_factory=dict)
    """Group whose system prompts are drawn -> share, in 0..1; the rest has no system prompt."""
    validation_ratio: Ratio | None = None
    """Share kept for validation, in 0..1; `None` takes `DataConfig`'s, 0 keeps all for training."""
    validation_system_prompt: str | None = None
    """System prompt of each validation conversation; `None` draws them as in training."""
    hub_config: str | None = None
    """Configuration of a hub data set."""
    system_prompts_hub_config: str | None = None
    """Configuration that holds the system prompts."""
    hub_split: str = "train"
    """Split of a hub data set."""
    revision: str | None = None
    """Commit, tag or branch of a hub data set; `None` takes today's, which the manifest records."""
    licence: str = ""
    """The publisher's licence, for information only."""

    def __post_init__(self) -> None:
        check_fields(self)
        total = sum(self.system_prompt_ratios.values())
        if not (total <= 1 + 1e-9 and min(self.system_prompt_ratios.values(), default=0) >= 0):
            raise ValueError(
                f"system_prompt_ratios of {self.name!r} are {self.system_prompt_ratios}: each must "
                "be at least 0 and their sum at most 1; the rest has no system prompt"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferenceSourceConfig(ConversationSourceConfig):
    """One group of preferences: conversations with two last answers, one better than the other."""

    def __post_init__(self) -> None:
        ConversationSourceConfig.__post_init__(self)
        prompts = (self.system_prompts_path, self.validation_system_prompt)
        if self.form is not None or self.system_prompt_ratios or any(prompts):
            raise ValueError(
                f"form or system prompts are set for the preferences {self.name!r}: these have one "
                "form, and their records bring their own system messages; remove the setting"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityConfig:
    """Filters of documents; by default none, as in the published recipe."""

    languages: tuple[str, ...] = ()
    """ISO 639 codes of the languages to keep, such as `fr`; empty keeps all."""
    max_characters: PositiveInt | None = None
    """Longer documents (stripped, before cleaning) are dropped."""
    drop_exact_duplicates: bool = False
    """Drop a document with the same cleaned text as an earlier one."""
    drop_near_duplicates: bool = False
    """Drop a document that nearly equals an earlier one; takes 100 bytes of memory a document."""
    near_duplicate_similarity: float = 0.8
    """Share of common five-word runs, in 0..1, at which two documents probably count as copies."""

    def __post_init__(self) -> None:
        for code in self.languages:
            if not re.fullmatch("[a-z]{2,3}", code):
                raise ValueError(
                    f"languages is {self.languages}: {code!r} is no ISO 639 code, such as 'fr'"
                )
        check_fields(self)
        if not 0.5 <= self.near_duplicate_similarity <= 0.95:
            raise ValueError(
                f"near_duplicate_similarity is {self.near_duplicate_similarity}: it must lie in "
                "0.5..0.95; for copies to the letter use drop_exact_duplicates"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """The tokenizer of a model."""

    kind: Literal["greedy", "byte_level"] = "greedy"
    """`greedy` is DimensionGPT's list of tokens; `byte_level` is the BPE of lilLM and GPT-2."""
    special_tokens: tuple[str, ...] = ()
    """Special tokens of a byte-level tokenizer: trained with it, or added to an existing one."""
    first_space: bool = False
    """Put a space before a text that has none; for byte-level tokenizers only."""
    path: str | None = None
    """An existing tokenizer instead of training: a file, or `hf://owner/name/tokenizer.json`."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.kind == "greedy" and (self.special_tokens or self.first_space):
            raise ValueError(
                f"special_tokens is {self.special_tokens} and first_space {self.first_space}: a "
                "greedy vocabulary has its ten special tokens and no first space; drop them, or "
                "set kind to 'byte_level'"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Settings that turn text into token files and training rows."""

    sources: tuple[SourceConfig, ...] = ()
    """Documents to pretrain on."""
    published_shares: dict[str, float] = field(default_factory=dict)
    """Group of sources -> share, in 0..1, in the published mixture: shown beside the actual shares,
    without an effect on them."""
    conversations: tuple[ConversationSourceConfig, ...] = ()
    """Conversations to fine-tune on."""
    preferences: tuple[PreferenceSourceConfig, ...] = ()
    """Pairs of answers, one better than the other, to train the fine-tuned model on."""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """Kind of the vocabulary, or an existing one."""
    vocab_size: PositiveInt = 32_000
    """Tokens of the vocabulary, special tokens included."""
    vocabulary_characters: PositiveInt = 300_000_000
    """Characters of the mixture that the vocabulary is trained on."""
    use_conversations_in_vocabulary: bool = False
    """Train the vocabulary also on conversations; the published one was trained on documents."""
    min_document_characters: NotNegativeInt = 64
    """Shorter documents (stripped, before cleaning) are dropped."""
    quality: QualityConfig = field(default_factory=QualityConfig)
    """Further filters of documents."""
    bad_records: Literal["refuse", "skip"] = "refuse"
    """Stop at a record that cannot be read, or skip and count it."""
    validation_ratio: Ratio = 0.001
    """Share of the documents kept for validation, in 0..1."""
    test_ratio: Ratio = 0.0
    """Share of the documents kept for a final test, in 0..1; 0 makes no test split."""
    instruction_weight: Ratio = 0.1
    """Loss weight, in 0..1, of tokens outside the model's own messages; 0 in validation."""
    later_conversations: Literal["by_length", "uniform"] = "by_length"
    """Probability of a conversation: in proportion to its tokens, or uniform. Applies with
    `concatenate` to all but a row's first, with `best_fit` to all, with `pad` to none."""
    packing: Packing = "concatenate"
    """Rows for fine-tuning: `concatenate` puts conversations one after the other, as the published
    model; `best_fit` packs complete conversations, which do not attend to each other; `pad` has one
    a row, as lilLM, without those as long as the context. The last two fill rows with padding."""
    compose_accents: bool = False
    """Compose accents (Unicode NFC) before cleaning; the published model did not."""
    num_workers: PositiveInt | None = None
    """Processes that clean and encode; `None` takes one per core."""
    seed: NotNegativeInt = 0
    """Seed of the vocabulary sample and of the splits."""

    def __post_init__(self) -> None:
        check_fields(self)
        shares = self.published_shares.values()
        if not (all(0 <= share < 1 for share in shares) and sum(shares) <= 1 + 1e-3):
            raise ValueError(
                f"published_shares is {self.published_shares}: each share must be at least 0 and "
                "less than 1, and their sum at most 1"
            )
        if self.validation_ratio + self.test_ratio > 1:
            raise ValueError(
                f"test_ratio is {self.test_ratio} and validation_ratio {self.validation_ratio}: "
                "their sum must be at most 1; lower one"
            )
        prompted = [
            group.name
            for group in self.conversations
            if group.system_prompt_ratios or group.validation_system_prompt is not None
        ]
        if self.packing == "pad" and prompted:
            raise ValueError(
                "packing is 'pad' and system_prompt_ratios or validation_system_prompt are set in "
                f"{', '.join(prompted)}: such rows get no further system prompts; drop these, or "
                "set packing to 'concatenate'"
            )
        if (longest := self.quality.max_characters) and longest < self.min_document_characters:
            raise ValueError(
                f"max_characters is {longest} and min_document_characters "
                f"{self.min_document_characters}: no document would be left; raise the first"
            )
        for groups in (self.conversations, self.preferences):
            ratios = [group.validation_ratio for group in groups]
            if ratios and not any(ratio is None or ratio > 0 for ratio in ratios):
                raise ValueError(
                    f"validation_ratio is 0 in all of {[group.name for group in groups]}: nothing "
                    "would be left to validate with; set it in one of them, such as to 0.01"
                )
        for group in (self.sources, self.conversations, self.preferences):
            names = [source.name for source in group]
            if len(set(names)) < len(names):
                raise ValueError(f"source names are {names}: each must be unique; rename one")
