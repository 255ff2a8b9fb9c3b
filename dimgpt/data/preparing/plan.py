"""The plan of a source: its files in their order, and the settings that determine the output.

A plan is made before anything is written. All runs and all shares that prepare a source together
have equal plans.

A share is the set of parts that one of N runs writes, on one machine or on many. Shares take shards
in turn if there are enough of them, else parts in turn. A source of about one part goes to one
share. A run without shares is share 1 of 1. The content of a part does not depend on the number of
shares.
"""

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from dimgpt.config import ConversationSourceConfig, DataConfig
from dimgpt.data.preparing.blocks import Block, read_blocks
from dimgpt.data.preparing.encoding import clean_beginning
from dimgpt.data.preparing.items import read_items, read_source
from dimgpt.data.preparing.listing import Listing, Source, SourceFile, is_demo
from dimgpt.data.preparing.quality import num_duplicate_keys
from dimgpt.data.preparing.splits import Borders, find_openings
from dimgpt.data.token_file import token_dtype
from dimgpt.files import lock_file
from dimgpt.text.tokenizer import Tokenizer

PART_BLOCKS = 256
"""Blocks per part: with blocks of 1 MiB, 256 MiB of text."""

_NUM_FIRST_ITEMS = 200
_LOCK = re.compile(r"share-(\d+)-of-(\d+)\.lock")
_SMALL_VOCABULARY = 4_000
_SAMPLE_BYTES = 1 << 20
# Fields that affect how data is drawn or shown, not what is written.
_OTHER_FIELDS = (
    "multiplier",
    "group",
    "ratio",
    "system_prompt_ratios",
    "validation_system_prompt",
    "licence",
    "expected_bytes",
)
# Fields that older versions did not have, with the values that mean the old behaviour.
_LATER_FIELDS = {"files": None, "cleaning": "none", "form": None}


class Place(NamedTuple):
    """The position of a part: its shard, and its number in the shard."""

    shard: int
    number: int

    def __str__(self) -> str:
        return f"{self.shard:05}-{self.number:05}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The plan of one source, see above."""

    source: Source
    config: DataConfig
    """For conversations, without the filters for documents."""
    tokenizer: Tokenizer
    target: Path
    """Folder of the finished files."""
    settings: dict[str, Any]
    """The result of `describe_settings`."""
    listing: Listing
    shards: list[tuple[SourceFile, ...]]
    """The same files, small ones grouped."""
    prompts: Listing | None
    """Files of a group's system prompts."""
    block_bytes: int
    """Approximate text of a block, in bytes."""
    part_blocks: int
    """Blocks per part."""

    @property
    def folder(self) -> Path:
        """The folder where the parts wait until all are finished."""
        return self.target.with_name(f"{self.target.name}.unfinished")

    @property
    def is_divided(self) -> bool:
        """Whether several shares divide the work; otherwise one does it all."""
        return self.listing.num_bytes > self.block_bytes * self.part_blocks

    @property
    def is_deduplicated(self) -> bool:
        """Whether copies of earlier documents are dropped."""
        return num_duplicate_keys(self.config.quality) > 0

    @property
    def borders(self) -> Borders:
        """The borders between the splits."""
        config = self.config
        if isinstance(self.source, ConversationSourceConfig) and self.source.validation_ratio == 0:
            return Borders(validation=0, holds_out=False)
        return Borders.of(validation_ratio=config.validation_ratio, test_ratio=config.test_ratio)

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """The files of the documents, and then those of the system prompts."""
        return self.listing.files + (self.prompts.files if self.prompts else ())

    @property
    def skip_bad(self) -> bool:
        """Whether records that cannot be used are skipped."""
        return self.config.bad_records == "skip"

    def describe(self) -> dict[str, Any]:
        """Return the JSON values that identify a finished folder; its manifest contains them."""
        files = [(file.name, file.num_bytes) for file in self.files]
        return {
            "settings": self.settings,
            "revision": self.listing.revision,
            "num_files": len(files),
            "num_file_bytes": sum(size for _, size in files),
            "files_sha256": hashlib.sha256(json.dumps(files).encode()).hexdigest(),
        }

    def values(self) -> dict[str, Any]:
        """Return the JSON values that determine the content of the parts."""
        return {
            "vocabulary_sha256": self.tokenizer.fingerprint,
            "source": self.describe(),
            "block_bytes": self.block_bytes,
            "part_blocks": self.part_blocks,
        }

    def read(self, shard: int, downloads: Path) -> Iterator[Block]:
        """Yield the blocks of a shard; a hub file is downloaded into `downloads`."""
        return read_source(
            self.source,
            self.shards[shard],
            folder=downloads,
            seed=self.config.seed,
            skip_bad=self.skip_bad,
            block_bytes=self.block_bytes,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """One of `count` runs that prepare a source together; `index` counts from 1."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(
                f"shard is {self.index}/{self.count}: it must be I/N with I from 1 to N"
            )

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Read `I/N`.

        Raises:
            ValueError: The text has another form, or I is not in 1..N.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal()):
            raise ValueError(f"shard is {text!r}: it must be I/N, such as 1/8 for the first of 8")
        return cls(index=int(index), count=int(count))

    def takes(self, plan: Plan, place: Place) -> bool:
        """Return whether this share writes a part."""
        return self == Share.of(plan, place, self.count)

    @classmethod
    def of(cls, plan: Plan, place: Place, count: int) -> "Share":
        """Return which of `count` shares writes a part."""
        if not plan.is_divided:
            number = crc32(plan.source.name.encode())
        elif len(plan.shards) >= count:
            number = place.shard
        else:
            number = place.shard + place.number
        return cls(index=number % count + 1, count=count)


ALONE = Share()
"""The run that writes everything."""


@contextlib.contextmanager
def hold(plan: Plan, share: Share) -> Iterator[None]:
    """Lock the parts of a share against other runs.

    Shares of the same count have different parts; those of another count may have the same parts.

    Raises:
        RuntimeError: Another run writes this share, or a share of another count.
    """
    with _lock(plan, share):
        for other in begun_shares(plan):
            if other.count != share.count:
                with _lock(plan, other):
                    pass
        yield


def _lock(plan: Plan, share: Share) -> AbstractContextManager[None]:
    return lock_file(
        plan.folder / f"share-{share.index}-of-{share.count}.lock",
        refusal=f"another run writes share {share.index} of {share.count} of {plan.source.name}: "
        "wait until it ends, or stop it",
    )


def begun_shares(plan: Plan) -> list[Share]:
    """Return the shares that were begun in a source's folder, by their lock files."""
    found = [_LOCK.fullmatch(path.name) for path in sorted(plan.folder.glob("share-*"))]
    return [Share(index=int(match[1]), count=int(match[2])) for match in found if match]


def group_files(files: Iterable[SourceFile], *, num_bytes: int) -> list[tuple[SourceFile, ...]]:
    """Group neighbouring files into shards of up to about `num_bytes`."""
    shards: list[list[SourceFile]] = []
    room = 0
    for file in files:
        if not shards or file.num_bytes > room:
            shards.append([])
            room = num_bytes
        shards[-1].append(file)
        room -= file.num_bytes
    return [tuple(shard) for shard in shards]


def describe_settings(source: Source, config: DataConfig) -> dict[str, Any]:
    """Return the settings that determine the output, as JSON values.

    The demo has no files, so its first items show whether their code has changed.
    """
    values = dataclasses.asdict(source)
    settings = {
        name: value
        for name, value in values.items()
        if name not in _OTHER_FIELDS and (name, value) not in _LATER_FIELDS.items()
    }
    own_ratio = settings.pop("validation_ratio", None)
    first: list[Any] = []
    if is_demo(source.path):
        files = [SourceFile(name=source.path, num_bytes=0)]
        blocks = read_blocks(files, columns=(), folder=Path(), seed=config.seed, block_bytes=1)
        first = [block.content[0] for block in islice(blocks, _NUM_FIRST_ITEMS)]
    described = {
        **settings,
        "min_characters": config.min_document_characters,
        "compose_accents": config.compose_accents,
        "seed": config.seed,
        "quality": dataclasses.asdict(config.quality),
        # A group's own 0 means no validation split; 0 in `DataConfig` means one document.
        "validation_ratio": config.validation_ratio if own_ratio is None else own_ratio or "none",
        "test_ratio": config.test_ratio,
        "bad_records": config.bad_records,
        "first_items_sha256": hashlib.sha256(repr(first).encode()).hexdigest() if first else None,
    }
    return json.loads(json.dumps(described))


def sample_openings(plan: Plan, downloads: Path) -> tuple[str, ...]:
    """Return the openings that many of the first documents share."""
    texts: list[str] = []
    num_bytes = 0
    for block in plan.read(0, downloads):
        texts += [
            clean_beginning(item, plan.tokenizer, plan.config)
            for item in read_items(block, plan.source, skip_bad=plan.skip_bad)
            if item is not None
        ]
        num_bytes += block.num_bytes
        if num_bytes >= _SAMPLE_BYTES:
            break
    return find_openings(texts)


def missing_bytes(plan: Plan) -> int:
    """Estimate the disk space that a source still needs: token files, and one downloaded file."""
    vocab_size = plan.tokenizer.vocab_size
    # A token has about four bytes of French, two with a small vocabulary.
    bytes_per_token = 2 if vocab_size < _SMALL_VOCABULARY else 4
    whole = plan.listing.text_bytes * token_dtype(vocab_size).itemsize // bytes_per_token
    written = sum(path.stat().st_size for path in plan.folder.glob("*.bin"))
    fetched = max((file.num_bytes for file in plan.listing.files if file.remote), default=0)
    return fetched + max(0, whole - written)
