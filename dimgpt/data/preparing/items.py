"""Parses the records of blocks into documents, conversations and system prompts.

A record that cannot be used raises an error with its place, or is skipped and counted. NUL and lone
surrogates are accepted: cleaning removes them, like any character outside the alphabet.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, TypeVar

from dimgpt.config import ConversationSourceConfig, PreferenceSourceConfig, SourceConfig
from dimgpt.data.conversation import Conversation
from dimgpt.data.preferences import to_preferences
from dimgpt.data.preparing.blocks import BLOCK_BYTES, Block, Item, made_blocks, read_blocks
from dimgpt.data.preparing.listing import Source, SourceFile, is_demo, list_source
from dimgpt.data.preparing.tables import Record, read_csv, read_json_lines, read_parquet
from dimgpt.data.records import document_of, text_of, to_conversations

T = TypeVar("T", str, Conversation)

_SKIP = "correct or remove it, or set bad_records to 'skip'"
_UNITS = {"json_lines": "line", "json_list": "record", "csv": "line", "table": "row"}
# If the first records of a block are all bad, this many of them, the settings must be wrong.
_TOO_MANY_BAD = 100
_NUM_COUNTED = 1_000


def read_documents(source: SourceConfig, *, seed: int = 0, skip_bad: bool = False) -> Iterator[str]:
    """Yield the documents of a source, one after the other, in a fixed order.

    For inspection and for small sources; a preparation reads the same blocks in several processes.
    A source is a file, or a folder that is read recursively in the order of its paths: `.txt`,
    `.text` and `.md` (a document a file), `.jsonl`, `.json` and `.csv` (a document a record), each
    also as `.gz` and `.zst`, and `.parquet`. It can also be `hf://datasets/owner/name`, read one
    file at a time, or `demo://stories/20000`, which is generated.

    Args:
        source: Relative paths start at the working directory.
        seed: Seed of the demo's documents.
        skip_bad: Skip records that cannot be used.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: The source is empty, damaged, or lacks the column; names the place.
    """
    return _read_all(source, str, "document", seed=seed, skip_bad=skip_bad)


def read_conversations(
    source: ConversationSourceConfig, *, seed: int = 0, skip_bad: bool = False
) -> Iterator[Conversation]:
    """Yield the conversations of a source.

    Works as `read_documents`, but without text files. The records of a file have one of the forms
    in `records.FORMS`. The demo has `demo://conversations/30000`. A group of preferences yields
    `Preference`.
    """
    return _read_all(source, Conversation, "conversation", seed=seed, skip_bad=skip_bad)


def _read_all(
    source: Source, kind: type[T], what: str, *, seed: int, skip_bad: bool
) -> Iterator[T]:
    files = list_source(source).files
    is_empty, num_skipped = True, 0
    with tempfile.TemporaryDirectory() as folder:
        for block in read_source(source, files, folder=Path(folder), seed=seed, skip_bad=skip_bad):
            for item in read_items(block, source, skip_bad=skip_bad):
                if isinstance(item, kind):
                    is_empty = False
                    yield item
                num_skipped += item is None
    if is_empty:
        remedy = f"check the path of {source.name!r}"
        if num_skipped:
            remedy = f"all {num_skipped:,} records were skipped: bad_records 'refuse' shows why"
        raise ValueError(f"{source.path} holds no {what}; {remedy}")


def read_source(
    source: Source,
    files: Sequence[SourceFile],
    *,
    folder: Path,
    seed: int,
    skip_bad: bool,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[Block]:
    """Cut files of a source into blocks that `read_items` can read independently.

    A conversation of several records may begin in one block and end in the next, so blocks of
    conversations are parsed here. The arguments are those of `read_blocks`.
    """
    columns = source.text_columns if isinstance(source, SourceConfig) else ()
    blocks = read_blocks(
        files,
        columns=columns,
        folder=folder,
        seed=seed,
        skip_bad=skip_bad,
        block_bytes=block_bytes,
    )
    if isinstance(source, SourceConfig) or is_demo(source.path):
        return blocks
    return _gather_conversations(blocks, source, skip_bad, block_bytes)


def read_items(block: Block, source: Source, *, skip_bad: bool = False) -> Iterator[Item | None]:
    """Yield the documents or conversations of a block; `None` for a record that is skipped.

    Raises:
        ValueError: A record cannot be used and `skip_bad` is off, or at least 100 records were read
            and none can be used.
    """
    if block.kind == "items":
        for item in block.content:
            if isinstance(item, str) and isinstance(source, SourceConfig):
                yield document_of(block.name, item, source)
            else:
                yield item
        return
    assert isinstance(source, SourceConfig)
    yield from _usable(_documents(block, source), skip_bad, lambda: _count_bad(block, source))


def _documents(block: Block, source: SourceConfig) -> Iterator[str | ValueError]:
    """Yield the document of each record, or why it cannot be used."""
    for place, record in _records(block):
        try:
            yield record if isinstance(record, ValueError) else document_of(place, record, source)
        except ValueError as error:
            yield error


def _count_bad(block: Block, source: SourceConfig) -> str:
    """Say how many of the first records of a block cannot be used, if there are several."""
    first = list(islice(_documents(block, source), _NUM_COUNTED))
    if len(first) == 1:
        return ""
    num_bad = sum(isinstance(document, ValueError) for document in first)
    place = f" after {_UNITS[block.kind]} {block.first:,}" if block.first > 1 else ""
    return f"{num_bad:,} of the first {len(first):,}{place} cannot be used; "


def _usable(
    found: Iterable[T | ValueError], skip_bad: bool, extent: Callable[[], str] = str
) -> Iterator[T | None]:
    """Yield usable items, and `None` for skipped ones.

    Raises the first error, or the hundredth if no good item came before it; `extent` says how many
    other records are bad.
    """
    num_good = num_bad = 0
    for item in found:
        if not isinstance(item, ValueError):
            num_good += 1
            yield item
            continue
        num_bad += 1
        if not skip_bad:
            raise ValueError(f"{item}; {extent()}{_SKIP}") from item
        if not num_good and num_bad >= _TOO_MANY_BAD:
            others = f"the {_TOO_MANY_BAD - 1} records before it cannot be used either"
            raise ValueError(f"{item}; {others}") from item
        yield None


def _gather_conversations(
    blocks: Iterable[Block], source: ConversationSourceConfig, skip_bad: bool, block_bytes: int
) -> Iterator[Block]:
    file_bytes = counted = 0
    forms: set[str] = set()

    def watched() -> Iterator[Block]:
        nonlocal file_bytes
        for block in blocks:
            file_bytes += block.file_bytes
            yield block

    def found() -> Iterator[Conversation | ValueError]:
        for _, of_file in groupby(watched(), key=lambda block: block.name):
            rows = chain.from_iterable(map(_rows, of_file))
            if isinstance(source, PreferenceSourceConfig):
                yield from to_preferences(rows)
            else:
                yield from to_conversations(rows, form=source.form, on_form=forms.add)

    conversations = _usable(found(), skip_bad)
    for block in made_blocks(conversations, name="conversations", block_bytes=block_bytes):
        notes = tuple(f"read as {name}" for name in sorted(forms))
        yield dataclasses.replace(block, file_bytes=file_bytes - counted, notes=notes)
        counted = file_bytes


def read_system_prompts(blocks: Iterable[Block], *, skip_bad: bool) -> Iterator[str]:
    """Yield the system prompts of blocks, records `{"preprompt": ...}`.

    Raises:
        ValueError: A record has none; or as `read_items`.
    """
    prompts = (
        values if isinstance(values, ValueError) else text_of(place, values, "preprompt")
        for place, values in chain.from_iterable(map(_rows, blocks))
    )
    yield from (prompt for prompt in _usable(prompts, skip_bad) if prompt is not None)


def _rows(block: Block) -> Iterator[tuple[str, dict[str, Any] | ValueError]]:
    """Yield the records of a block with their places, or why one cannot be read."""
    for place, record in _records(block):
        if isinstance(record, str):
            raise ValueError(f"{place} is a plain text: use a table of records")
        yield place, record


def _records(block: Block) -> Iterator[tuple[str, dict[str, Any] | str | ValueError]]:
    """Yield the place of each record, and its values, its text, or the error in it."""
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
