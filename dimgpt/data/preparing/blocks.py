"""Cuts the files of a source into blocks of complete, unparsed records, about 1 MiB each.

Cutting is cheap, so one process can feed many workers, which parse (`items.py`), clean and encode.
The blocks of a file are always the same.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from dimgpt.data.conversation import Conversation
from dimgpt.data.preparing.listing import (
    DEMO_PREFIX,
    TABLE_SUFFIXES,
    TEXT_SUFFIXES,
    SourceFile,
    is_demo,
    kind_of,
)
from dimgpt.data.preparing.tables import (
    BOM,
    Piece,
    cut_lines,
    cut_parquet,
    json_form,
    read_whole,
    split_json,
)
from dimgpt.demo import corpus as demo_corpus
from dimgpt.demo import preferences as demo_preferences
from dimgpt.demo.small_talk import small_talk
from dimgpt.hub import PATIENCE, Patience, download_file

Item = str | Conversation
"""A document, or a conversation."""
T = TypeVar("T")

BLOCK_BYTES = 1 << 20
_WHOLE_TEXTS = set(TEXT_SUFFIXES) - set(TABLE_SUFFIXES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Complete records of a file, or several files of one text each, or parsed items."""

    kind: Literal["json_lines", "json_list", "csv", "table", "texts", "items"]
    name: str
    """The file, for messages."""
    content: Any
    """Bytes of records; or (name, bytes) of each text; or items, `None` for bad ones."""
    first: int = 0
    """Records (lines, rows) of the file before this block."""
    file_bytes: int = 0
    """Bytes on the disk that were read for this block."""
    header: bytes = b""
    """First line of a CSV file."""
    notes: tuple[str, ...] = ()
    """Notes for the report of the source, such as "read as ShareGPT"."""

    @property
    def num_bytes(self) -> int:
        """Size of the content in bytes; in characters if it is parsed items."""
        is_bytes = isinstance(self.content, bytes)
        return len(self.content) if is_bytes else sum(map(_size, self.content))


def read_blocks(
    files: Iterable[SourceFile],
    *,
    folder: Path,
    columns: tuple[str, ...] = (),
    seed: int = 0,
    skip_bad: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[Block]:
    """Cut files into blocks, in their order.

    Args:
        files: Files of one source.
        folder: Holds downloaded files, one at a time.
        columns: Columns to read from Parquet files; all, if a file has none of them.
        seed: Seed of the demo's texts.
        skip_bad: Skip lines that are too long, except in CSV files.
        block_bytes: Approximate size of a block.

    Raises:
        ValueError: A file is damaged or of an unknown kind, or a record is too long.
        OSError: As `dimgpt.hub.download_file`.
    """
    for is_text, group in groupby(files, key=lambda file: kind_of(file.name) in _WHOLE_TEXTS):
        if is_text:
            yield from _read_texts(group, folder, block_bytes)
            continue
        for file in group:
            if is_demo(file.name):
                yield from _make_demo(file.name, seed, block_bytes)
                continue
            with at_hand(file, folder) as path:
                yield from _read_table(file.name, path, columns, skip_bad, block_bytes)


@contextlib.contextmanager
def at_hand(file: SourceFile, folder: Path, *, patience: Patience = PATIENCE) -> Iterator[Path]:
    """Yield a local path of a file; a hub file is downloaded first, and deleted at the end.

    If the `with` block fails or the process is killed, the partial download stays in the folder,
    and the next call with the same file and folder resumes it.

    Args:
        file: Any but the demo's.
        folder: Holds the downloaded file, and no other.
        patience: How long to retry.

    Raises:
        OSError: As `dimgpt.hub.download_file`.
    """
    if file.remote is None:
        yield Path(file.name)
        return
    folder.mkdir(parents=True, exist_ok=True)
    # Shards in different folders may share a name, so the digest comes first.
    start = file.remote.digest[:16]
    for path in folder.iterdir():
        if not path.name.startswith(start):
            path.unlink()
    target = folder / f"{start}-{PurePosixPath(file.remote.path).name}"
    yield download_file(file.remote, target, patience=patience)
    target.unlink(missing_ok=True)


def made_blocks(items: Iterable[Item | None], *, name: str, block_bytes: int) -> Iterator[Block]:
    """Gather items into blocks; `None` stands for a record that is skipped."""
    first = 0
    for group in _gather(items, block_bytes):
        yield Block(kind="items", name=name, first=first, content=tuple(group))
        first += len(group)


def _gather(values: Iterable[T], limit: int) -> Iterator[list[T]]:
    """Gather values until their sizes reach a limit."""
    waiting: list[T] = []
    total = 0
    for value in values:
        waiting.append(value)
        total += _size(value)
        if total >= limit:
            yield waiting
            waiting, total = [], 0
    if waiting:
        yield waiting


def _size(value: Any) -> int:
    if isinstance(value, Conversation):
        return sum(len(message.text) for message in value.messages)
    if isinstance(value, tuple):
        return len(value[1])
    return len(value or "")


def _make_demo(name: str, seed: int, block_bytes: int) -> Iterator[Block]:
    makers: dict[str, Callable[..., Iterator[Item]]] = {
        "stories": demo_corpus.stories,
        "conversations": demo_corpus.conversations,
        "preferences": demo_preferences.preferences,
        "small-talk": small_talk,
    }
    match = re.fullmatch(rf"{DEMO_PREFIX}({'|'.join(makers)})/(0*[1-9][0-9]*)", name)
    if match is None:
        raise ValueError(
            f"path is {name!r}: it must be {DEMO_PREFIX}KIND/NUMBER, such as "
            f"{DEMO_PREFIX}stories/20000; KIND is one of {', '.join(makers)}"
        )
    made = makers[match[1]](int(match[2]), seed=seed)
    yield from made_blocks(made, name=name, block_bytes=block_bytes)


def _read_texts(files: Iterable[SourceFile], folder: Path, block_bytes: int) -> Iterator[Block]:
    """Gather files of one text each into blocks that are worth sending to a worker."""

    def contents() -> Iterator[tuple[SourceFile, bytes]]:
        for file in files:
            with at_hand(file, folder) as path:
                try:
                    content = read_whole(path, name=file.name, remedy="cut it into documents")
                except EOFError as error:
                    raise _damaged(file.name, "its beginning", error) from error
                yield file, content

    for group in _gather(contents(), block_bytes):
        yield Block(
            kind="texts",
            name=group[0][0].name,
            content=tuple((file.name, content) for file, content in group),
            file_bytes=sum(file.num_bytes for file, _ in group),
        )


def _read_table(
    name: str, path: Path, columns: tuple[str, ...], skip_bad: bool, block_bytes: int
) -> Iterator[Block]:
    first = last_place = 0
    header = b""
    try:
        kind, pieces = _pieces(name, path, columns, skip_bad, block_bytes)
        for content, num_records, place in pieces:
            if not first:
                content = content.removeprefix(BOM)
            if kind == "csv" and not first:
                header, _, content = content.partition(b"\n")
                first, num_records = 1, num_records - 1
            yield Block(
                kind=kind,
                name=name,
                first=first,
                content=content,
                file_bytes=place - last_place,
                header=header,
            )
            first, last_place = first + num_records, place
    except EOFError as error:
        unit = "row" if kind_of(name) == ".parquet" else "line"
        raise _damaged(name, f"{unit} {first:,}", error) from error


def _pieces(
    name: str, path: Path, columns: tuple[str, ...], skip_bad: bool, block_bytes: int
) -> tuple[Literal["json_lines", "json_list", "csv", "table"], Iterator[Piece]]:
    kind = kind_of(name)
    if kind == ".parquet":
        return "table", cut_parquet(path, columns=columns, block_bytes=block_bytes)
    if kind == ".csv":
        return "csv", cut_lines(path, name=name, piece_bytes=block_bytes, has_quotes=True)
    if kind not in TABLE_SUFFIXES:
        raise ValueError(f"{name} cannot be read: it must be one of {', '.join(TEXT_SUFFIXES)}")
    if kind == ".json" and json_form(path) != "lines":
        return "json_list", _cut_json(name, path, block_bytes)
    return "json_lines", cut_lines(path, name=name, piece_bytes=block_bytes, skip_long=skip_bad)


def _cut_json(name: str, path: Path, block_bytes: int) -> Iterator[Piece]:
    """Parse a JSON list, and write one record a line."""
    content = read_whole(path, name=name, remedy="convert it to .jsonl, with one record a line")
    try:
        for group in _gather(split_json(content), block_bytes):
            yield "\n".join(group).encode(), len(group), path.stat().st_size
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON ({error}); correct it, or remove the file") from error


def _damaged(name: str, place: str, error: Exception) -> ValueError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ValueError(f"{name} is cut short or damaged after {place} ({reason}); fetch it again")
