"""What the records of a block say: documents, conversations, system prompts.

A record that cannot be used is an error that names its place, or is skipped and counted. NUL and
lone surrogates are no fault: cleaning removes them, as any sign outside the alphabet.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dimgpt.config import SourceConfig
from dimgpt.data.conversations.formats import to_conversations
from dimgpt.data.preparing import csv_records, parquet
from dimgpt.data.preparing.block import Block, Item, made_blocks
from dimgpt.data.records import Row, document_of, text_of

_SKIP = "correct or remove it, or set bad_records to 'skip'"
# So many records of one block, all of them bad: the setting is wrong, not the records.
_TOO_MANY_BAD = 100


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
    num_good = num_bad = 0
    for place, record in _read_records(block):
        try:
            text = _text(place, record, rules.source)
        except ValueError as error:
            num_bad += 1
            _refuse(error, rules, is_hopeless=not num_good and num_bad >= _TOO_MANY_BAD)
            yield None
        else:
            num_good += 1
            yield text


def read_conversations_of(blocks: Iterable[Block], rules: ItemRules) -> Iterator[Item | None]:
    """Yield the conversations of blocks; `None` for one that is skipped.

    Not block by block: where a record is one message, a conversation may begin in one and end in
    the next.

    Raises:
        ValueError: As `read_documents_of`.
    """
    bad: list[ValueError] = []
    conversations = to_conversations(_rows(blocks, rules, bad), on_bad=bad.append)
    num_good = num_bad = 0
    while True:
        conversation = next(conversations, None)
        for error in bad:
            num_bad += 1
            _refuse(error, rules, is_hopeless=not num_good and num_bad >= _TOO_MANY_BAD)
            yield None
        bad.clear()
        if conversation is None:
            return
        num_good += 1
        yield conversation


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
        ValueError: A record has none.
    """
    for place, values in _rows(blocks, rules, []):
        yield text_of(place, values, "preprompt")


def _text(place: str, record: "_Record", source: SourceConfig | None) -> str:
    if isinstance(record, ValueError):
        raise record
    if isinstance(record, str):
        return record
    assert source is not None
    return document_of(place, record, source)


def _refuse(error: ValueError, rules: ItemRules, *, is_hopeless: bool) -> None:
    if not rules.skip_bad:
        raise ValueError(f"{error}; {_SKIP}") from error
    if is_hopeless:
        raise ValueError(
            f"{error}; and {_TOO_MANY_BAD - 1} records before it were as bad, without a good one"
        ) from error


def _rows(blocks: Iterable[Block], rules: ItemRules, bad: list[ValueError]) -> Iterator[Row]:
    """Yield the records of blocks with their places; put what is wrong with others into `bad`."""
    for block in blocks:
        for place, record in _read_records(block):
            if isinstance(record, dict):
                yield place, record
            elif isinstance(record, Exception):
                if not rules.skip_bad:
                    raise record
                bad.append(record)
            else:
                raise ValueError(f"{place} is a text; it takes a table of records")


_Record = dict[str, Any] | str | ValueError
"""The values of a record, a whole text, or why it cannot be read."""


def _read_records(block: Block) -> Iterator[tuple[str, _Record]]:
    """Yield where each record stands, and what it holds."""
    if block.kind == "texts":
        for name, content in block.content:
            yield name, _decode(name, content)
    elif block.kind == "json":
        for number, line in enumerate(block.content.split(b"\n"), start=block.first + 1):
            if line.strip():
                place = f"{block.name}, line {number}"
                yield place, _parse_line(place, line)
    elif block.kind == "csv":
        for number, row in csv_records.read_rows(
            block.content, header=block.header, delimiter=block.delimiter
        ):
            place = f"{block.name}, line {block.first + number}"
            yield place, ValueError(f"{place} {row}") if isinstance(row, str) else row
    else:
        for number, values in enumerate(parquet.read_rows(block.content), start=block.first + 1):
            place = f"{block.name}, row {number}"
            is_bad = isinstance(values, UnicodeDecodeError)
            yield place, ValueError(f"{place} is not UTF-8") if is_bad else values


def _decode(name: str, content: bytes) -> str | ValueError:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return ValueError(
            f"{name} is not UTF-8 at byte {error.start:,}; convert it, for example with iconv"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse_line(place: str, line: bytes) -> dict[str, Any] | ValueError:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return ValueError(f"{place} is no JSON ({error})")
    if not isinstance(values, dict):
        return ValueError(f"{place} is a JSON {type(values).__name__}: it must be an object")
    return values
