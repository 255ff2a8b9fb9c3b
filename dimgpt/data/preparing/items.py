"""Turns the records of blocks into documents, conversations and system prompts.

A record that cannot be used is an error that names its place, or is skipped and counted. NUL and
lone surrogates are no fault: cleaning removes them, like any character outside the alphabet.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.data.conversation import Conversation
from dimgpt.data.preparing.blocks import Block, Item, made_blocks, read_blocks
from dimgpt.data.preparing.listing import (
    TABLE_SUFFIXES,
    TEXT_SUFFIXES,
    Location,
    is_demo,
    list_source,
)
from dimgpt.data.preparing.tables import Record, read_csv, read_json_lines, read_parquet
from dimgpt.data.records import Row, document_of, text_of, to_conversations

T = TypeVar("T", str, Conversation)

_SKIP = "correct or remove it, or set bad_records to 'skip'"
_UNITS = {"json_lines": "line", "json_list": "record", "csv": "line", "table": "row"}
# If so many records of one block are all bad, the setting is wrong and not the records.
_TOO_MANY_BAD = 100
_NUM_COUNTED = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemRules:
    """What to make of records."""

    source: SourceConfig | None = None
    """Says which columns a document is made of; `None`: records are no documents."""
    skip_bad: bool = False
    """Skip a record that cannot be used."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are enough; none, if it depends on the record."""
        return self.source.text_columns if self.source else ()


def read_documents(source: SourceConfig, *, seed: int = 0, skip_bad: bool = False) -> Iterator[str]:
    """Yield the documents of a source, one after the other, in a fixed order.

    To look at them, and for small sources; a preparation reads the same blocks in several
    processes. A source is a file, or a folder that is read recursively in the order of its paths:
    `.txt`, `.text` and `.md` (a document a file), `.jsonl`, `.json` and `.csv` (a document a
    record), each also as `.gz` and `.zst`, and `.parquet`. Or `hf://datasets/owner/name`, one of
    its files at a time. Or `demo://stories/20000`, made on the spot.

    Args:
        source: Relative paths start at the working directory.
        seed: Seed of the demo's documents.
        skip_bad: Skip records that cannot be used.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: The source is empty, damaged, or lacks the column; names the place.
    """
    rules = ItemRules(source=source, skip_bad=skip_bad)
    blocks = _read_source(source, rules, TEXT_SUFFIXES, seed)
    documents = (item for block in blocks for item in read_documents_of(block, rules))
    return _require_some(documents, str, source, "document")


def read_conversations(
    source: ConversationSourceConfig, *, seed: int = 0, skip_bad: bool = False
) -> Iterator[Conversation]:
    """Yield the conversations of a source.

    Records of the forms that `conversations/formats.py` knows, from the places that
    `read_documents` reads, without text files; or `demo://conversations/30000`.

    Args:
        source: Relative paths start at the working directory.
        seed: Seed of the demo's conversations.
        skip_bad: Skip records that cannot be used.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: The source is empty or damaged, or a record is no conversation.
    """
    rules = ItemRules(skip_bad=skip_bad)
    blocks = _read_source(source, rules, TABLE_SUFFIXES, seed)
    made = (item for block in blocks for item in block.content)
    conversations = made if is_demo(source.path) else read_conversations_of(blocks, rules)
    return _require_some(conversations, Conversation, source, "conversation")


def _read_source(
    source: SourceConfig | ConversationSourceConfig,
    rules: ItemRules,
    suffixes: tuple[str, ...],
    seed: int,
) -> Iterator[Block]:
    files = list_source(Location.of(source), suffixes=suffixes).files
    with tempfile.TemporaryDirectory() as folder:
        yield from read_blocks(
            files, columns=rules.columns, folder=Path(folder), seed=seed, skip_bad=rules.skip_bad
        )


def _require_some(
    items: Iterable[Item | None],
    kind: type[T],
    source: SourceConfig | ConversationSourceConfig,
    what: str,
) -> Iterator[T]:
    """Yield the items of a kind; raise a `ValueError` if there is none."""
    is_empty = True
    for item in items:
        if isinstance(item, kind):
            is_empty = False
            yield item
    if is_empty:
        raise ValueError(f"{source.path} holds no {what}; check the path of {source.name!r}")


class _BadRecords:
    """Counts records that cannot be used; raises at the first, or at many without a good one."""

    def __init__(self, rules: ItemRules, extent: Callable[[], str] = str) -> None:
        """Start to count; `extent` says in an error how many other records are bad."""
        self.num_good = self.num_bad = 0
        self._skip, self._extent = rules.skip_bad, extent

    def add(self, error: ValueError) -> None:
        """Count a record, or raise what is wrong with it."""
        self.num_bad += 1
        if not self._skip:
            raise ValueError(f"{error}; {self._extent()}{_SKIP}") from error
        if not self.num_good and self.num_bad >= _TOO_MANY_BAD:
            others = f"{_TOO_MANY_BAD - 1} records before it were as bad, without a good one"
            raise ValueError(f"{error}; and {others}") from error


def read_documents_of(block: Block, rules: ItemRules) -> Iterator[Item | None]:
    """Yield the documents of a block; `None` for a record that is skipped.

    A block of ready items gives those.

    Raises:
        ValueError: A record cannot be used and is not to be skipped, or 100 records and more, and
            none of them can be used.
    """
    if block.kind == "items":
        yield from block.content
        return
    bad = _BadRecords(rules, lambda: _count_bad(block, rules.source))
    for document in _documents(block, rules.source):
        if isinstance(document, ValueError):
            bad.add(document)
            yield None
        else:
            bad.num_good += 1
            yield document


def _documents(block: Block, source: SourceConfig | None) -> Iterator[str | ValueError]:
    """Yield the document of each record, or why it cannot be used."""
    for place, record in _records(block):
        document: str | ValueError
        if isinstance(record, dict):
            assert source is not None
            try:
                document = document_of(place, record, source)
            except ValueError as error:
                document = error
        else:
            document = record
        yield document


def _count_bad(block: Block, source: SourceConfig | None) -> str:
    """Say how many of the first records of a block cannot be used, if there are several."""
    first = list(islice(_documents(block, source), _NUM_COUNTED))
    if len(first) == 1:
        return ""
    num_bad = sum(isinstance(document, ValueError) for document in first)
    place = f" after {_UNITS[block.kind]} {block.first:,}" if block.first > 1 else ""
    return f"{num_bad:,} of the first {len(first):,}{place} cannot be used; "


def read_conversations_of(blocks: Iterable[Block], rules: ItemRules) -> Iterator[Item | None]:
    """Yield the conversations of blocks; `None` for one that is skipped.

    Takes all blocks of a source, because a conversation of several records may begin in one block
    and end in the next.

    Raises:
        ValueError: As `read_documents_of`.
    """
    bad = _BadRecords(rules)
    num_skipped = 0
    for conversation in to_conversations(_rows(blocks, bad), on_bad=bad.add):
        yield from [None] * (bad.num_bad - num_skipped)
        num_skipped = bad.num_bad
        bad.num_good += 1
        yield conversation
    yield from [None] * (bad.num_bad - num_skipped)


def gather_conversations(
    blocks: Iterable[Block], rules: ItemRules, *, block_bytes: int
) -> Iterator[Block]:
    """Turn blocks of records into blocks of conversations."""
    file_bytes = counted = 0

    def watched() -> Iterator[Block]:
        nonlocal file_bytes
        for block in blocks:
            file_bytes += block.file_bytes
            yield block

    conversations = read_conversations_of(watched(), rules)
    for block in made_blocks(conversations, name="conversations", block_bytes=block_bytes):
        yield dataclasses.replace(block, file_bytes=file_bytes - counted)
        counted = file_bytes


def read_system_prompts_of(blocks: Iterable[Block], rules: ItemRules) -> Iterator[str]:
    """Yield the system prompts of blocks, records `{"preprompt": ...}`.

    Raises:
        ValueError: A record has none; or as `read_documents_of`.
    """
    for place, values in _rows(blocks, _BadRecords(rules)):
        yield text_of(place, values, "preprompt")


def _rows(blocks: Iterable[Block], bad: _BadRecords) -> Iterator[Row]:
    """Yield the records of blocks with their places."""
    for block in blocks:
        for place, record in _records(block):
            if isinstance(record, dict):
                yield place, record
            elif isinstance(record, ValueError):
                bad.add(record)
            else:
                raise ValueError(f"{place} is a text; it takes a table of records")


def _records(block: Block) -> Iterator[tuple[str, dict[str, Any] | str | ValueError]]:
    """Yield where each record stands, and its values, its whole text, or why it is unreadable."""
    if block.kind == "texts":
        yield from ((name, _decode(name, content)) for name, content in block.content)
        return
    for number, record in _read_table(block):
        place = f"{block.name}, {_UNITS[block.kind]} {block.first + number}"
        yield place, record if isinstance(record, dict) else ValueError(f"{place} {record}")


def _read_table(block: Block) -> Iterator[tuple[int, Record]]:
    if block.kind == "csv":
        return read_csv(block.content, header=block.header, name=block.name)
    return (read_parquet if block.kind == "table" else read_json_lines)(block.content)


def _decode(name: str, content: bytes) -> str | ValueError:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return ValueError(
            f"{name} is not UTF-8 at byte {error.start:,}; convert it, for example with iconv"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")
