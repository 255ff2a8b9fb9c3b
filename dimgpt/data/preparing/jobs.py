"""What there is to do for a source: which files, in which order, and what decides about the result.

A job is planned before anything is written; `preparation.py` does it.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dimgpt.config import ConversationSourceConfig, DataConfig, SourceConfig
from dimgpt.data.preparing.blocks import BLOCK_BYTES, Block, read_blocks
from dimgpt.data.preparing.encoding import EncodingRules
from dimgpt.data.preparing.items import ItemRules, gather_conversations
from dimgpt.data.preparing.listing import (
    TABLE_SUFFIXES,
    TEXT_SUFFIXES,
    Listing,
    Location,
    SourceFile,
    group_files,
    is_demo,
    is_local,
    list_source,
)
from dimgpt.data.preparing.parts import Position
from dimgpt.data.preparing.quality import num_duplicate_keys
from dimgpt.data.preparing.shares import Share
from dimgpt.data.preparing.splits import Borders
from dimgpt.text.tokenizer import Tokenizer

PART_BYTES = 1 << 28
"""A part is finished after so much text, or with its shard."""

_NUM_FIRST_ITEMS = 200
# Fields that decide how often something is drawn, or how it is shown: not what is written.
_OTHER_FIELDS = (
    "multiplier",
    "group",
    "ratio",
    "system_prompt_ratios",
    "licence",
    "expected_bytes",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How a source is cut."""

    block_bytes: int = BLOCK_BYTES
    part_bytes: int = PART_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The preparation of one source."""

    source: SourceConfig | ConversationSourceConfig
    config: DataConfig
    tokenizer: Tokenizer
    target: Path
    """Folder of the finished files."""
    settings: dict[str, Any]
    """Plain values that decide what is written, as far as they are known without looking."""
    listing: Listing
    prompts: Listing | None
    """Files of a group's system prompts."""
    sizes: Sizes

    @property
    def shards(self) -> list[tuple[SourceFile, ...]]:
        """The files, small ones together."""
        return group_files(self.listing.files, num_bytes=self.sizes.part_bytes)

    @property
    def start(self) -> Position:
        """Where the first part starts; system prompts are a part before the first shard."""
        return Position(-1 if self.prompts else 0, 0)

    @property
    def borders(self) -> Borders:
        """The borders between the splits."""
        config = self.config
        return Borders.of(validation_ratio=config.validation_ratio, test_ratio=config.test_ratio)

    @property
    def items(self) -> ItemRules:
        """What to make of its records."""
        skip_bad = self.config.bad_records == "skip"
        source = self.source if isinstance(self.source, SourceConfig) else None
        return ItemRules(source=source, skip_bad=skip_bad)

    @property
    def encoding(self) -> EncodingRules:
        """How its items become ids; documents only are filtered."""
        rules = EncodingRules.of(self.config)
        if isinstance(self.source, SourceConfig):
            return rules
        return dataclasses.replace(rules, quality=type(rules.quality)())

    @property
    def is_deduplicated(self) -> bool:
        """Tell whether copies of earlier documents are dropped."""
        return num_duplicate_keys(self.encoding.quality) > 0

    def describe(self) -> dict[str, Any]:
        """Return the plain values that decide what is written."""
        listings = [self.listing, *([self.prompts] if self.prompts else [])]
        files = [(file.name, file.num_bytes) for part in listings for file in part.files]
        return {
            "settings": self.settings,
            "revision": self.listing.revision,
            "num_files": len(files),
            "num_file_bytes": sum(size for _, size in files),
            "files_sha256": hashlib.sha256(json.dumps(files).encode()).hexdigest(),
        }

    def plan(self, share: Share | None) -> dict[str, Any]:
        """Return the plain values that decide what the parts hold."""
        return {
            "vocabulary_sha256": self.tokenizer.fingerprint,
            "source": self.describe(),
            "share": dataclasses.asdict(share) if share else None,
            **dataclasses.asdict(self.sizes),
        }

    @property
    def is_divided(self) -> bool:
        """Tell whether several runs share the work, or one does it all."""
        return self.listing.num_bytes > self.sizes.part_bytes

    def read(self, shard: int, folder: Path) -> Iterator[Block]:
        """Yield the blocks of a shard; `folder` holds what is fetched meanwhile."""
        blocks = self._read(self.shards[shard], folder)
        if isinstance(self.source, SourceConfig) or is_demo(self.source.path):
            return blocks
        return gather_conversations(blocks, self.items, block_bytes=self.sizes.block_bytes)

    def read_prompts(self, folder: Path) -> Iterator[Block]:
        """Yield the blocks of the system prompts."""
        return self._read(self.prompts.files if self.prompts else (), folder)

    def _read(self, files: Iterable[SourceFile], folder: Path) -> Iterator[Block]:
        return read_blocks(
            files,
            columns=self.items.columns,
            folder=folder,
            seed=self.config.seed,
            skip_bad=self.items.skip_bad,
            block_bytes=self.sizes.block_bytes,
        )


def plan_job(
    source: SourceConfig | ConversationSourceConfig,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    config: DataConfig,
    settings: dict[str, Any],
    revision: str | None = None,
    sizes: Sizes | None = None,
) -> Job:
    """Look what there is to do for a source.

    Args:
        source: Documents or conversations.
        tokenizer: Its vocabulary becomes part of the files' identity.
        folder: Such as `data/demo/pretraining`; the source gets a folder of its own there.
        config: What is kept, and how it is split.
        settings: What `describe_settings` says of them.
        revision: Commit of a hub data set to go on with, if the source names none.
        sizes: How to cut it.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: The path holds nothing to read.
    """
    listing, prompts = _list(source, revision)
    return Job(
        source=source,
        config=config,
        tokenizer=tokenizer,
        target=folder / source.name,
        settings=settings,
        listing=listing,
        prompts=prompts,
        sizes=sizes or Sizes(),
    )


def _list(
    source: SourceConfig | ConversationSourceConfig, revision: str | None
) -> tuple[Listing, Listing | None]:
    """List the files of a source, and those of a group's system prompts."""
    location = Location.of(source)
    if location.revision is None:
        location = dataclasses.replace(location, revision=revision)
    if isinstance(source, SourceConfig):
        return list_source(location, suffixes=TEXT_SUFFIXES), None
    listing = list_source(location, suffixes=TABLE_SUFFIXES)
    prompts = Location.of_system_prompts(source)
    return listing, list_source(prompts, suffixes=TABLE_SUFFIXES) if prompts else None


def describe_settings(
    source: SourceConfig | ConversationSourceConfig, config: DataConfig
) -> dict[str, Any]:
    """Return the settings that decide what is written, as plain values.

    The demo has no files; its first items tell whether the code that makes them has changed.
    """
    values = dataclasses.asdict(source)
    settings = {name: value for name, value in values.items() if name not in _OTHER_FIELDS}
    first: list[Any] = []
    if is_demo(source.path):
        files = [SourceFile(name=source.path, num_bytes=0)]
        blocks = read_blocks(files, columns=(), folder=Path(), seed=config.seed, block_bytes=1)
        first = [block.content[0] for block in islice(blocks, _NUM_FIRST_ITEMS)]
    described = {
        **settings,
        **dataclasses.asdict(EncodingRules.of(config)),
        "validation_ratio": config.validation_ratio,
        "test_ratio": config.test_ratio,
        "bad_records": config.bad_records,
        "first_items_sha256": hashlib.sha256(repr(first).encode()).hexdigest() if first else None,
    }
    return json.loads(json.dumps(described))


def is_settled(source: SourceConfig | ConversationSourceConfig) -> bool:
    """Tell whether the files of a source cannot change behind the back of its settings."""
    return not is_local(source.path) and not is_demo(source.path)
