"""Sources as blocks: about a megabyte of whole records each, as they stand in their file.

Cutting costs little, so that one process feeds many: parsing a block, and all that follows, is the
workers' (`records.py`, `encoding.py`). Blocks are the same each time, whoever reads them.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dimgpt.data.preparing.block import (
    BLOCK_BYTES,
    MAX_RECORD_BYTES,
    MAX_TEXT_BYTES,
    Block,
    damaged,
    made_blocks,
)
from dimgpt.data.preparing.compression import DAMAGE, read_chunks
from dimgpt.data.preparing.csv_records import read_header
from dimgpt.data.preparing.listing import DEMO_PREFIX, SourceFile, at_hand, is_demo
from dimgpt.data.preparing.parquet import read_parquet
from dimgpt.demo import corpus as demo_corpus

_BOM = b"\xef\xbb\xbf"


def read_blocks(
    files: Iterable[SourceFile],
    *,
    columns: tuple[str, ...],
    folder: Path,
    seed: int,
    skip_bad: bool = False,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[Block]:
    """Cut files into blocks, in their order.

    Args:
        files: Of one source.
        columns: Of tables, those to read; the others are skipped where the format allows it.
        folder: Holds files that are fetched, one at a time.
        seed: Seed of the demo's documents.
        skip_bad: Skip lines that are too long; of a CSV file, none can be.
        block_bytes: About how much a block holds.

    Raises:
        ValueError: A file is damaged, or a record too long; names file and place.
    """
    texts = _TextGatherer(block_bytes)
    for file in files:
        if is_demo(file.name):
            yield from _make_blocks(file.name, seed, block_bytes)
            continue
        with at_hand(file, folder) as path:
            if _kind(file.name) == ".txt":
                yield from texts.add(file, path)
                continue
            yield from texts.rest()
            if _kind(file.name) == ".jsonl":
                yield from _read_lines(file, path, block_bytes, skip_bad)
            elif _kind(file.name) == ".csv":
                yield from _read_csv(file, path, block_bytes)
            else:
                yield from read_parquet(file, path, columns=columns, block_bytes=block_bytes)
    yield from texts.rest()


def _kind(name: str) -> str:
    return Path(re.sub(r"\.(gz|zst)$", "", name)).suffix


class _TextGatherer:
    """Gathers files that are one text each, so that a block is worth sending."""

    def __init__(self, block_bytes: int) -> None:
        self._block_bytes = block_bytes
        self._texts: list[tuple[str, bytes]] = []
        self._num_bytes = self._file_bytes = 0

    def add(self, file: SourceFile, path: Path) -> Iterator[Block]:
        """Take a file; yield a block if it is full."""
        content = bytearray()
        try:
            for chunk, _ in read_chunks(path, chunk_bytes=BLOCK_BYTES):
                content += chunk
                if len(content) > MAX_TEXT_BYTES:
                    raise _too_long(file.name, MAX_TEXT_BYTES)
        except DAMAGE as error:
            raise damaged(file.name, "its beginning", error) from error
        self._texts.append((file.name, bytes(content)))
        self._num_bytes += len(content)
        self._file_bytes += file.num_bytes
        if self._num_bytes >= self._block_bytes:
            yield from self.rest()

    def rest(self) -> Iterator[Block]:
        """Yield what is left."""
        if self._texts:
            yield Block(
                kind="texts",
                name=self._texts[0][0],
                first=0,
                content=tuple(self._texts),
                num_bytes=self._num_bytes,
                file_bytes=self._file_bytes,
            )
        self._texts = []
        self._num_bytes = self._file_bytes = 0


def _read_lines(file: SourceFile, path: Path, block_bytes: int, skip_bad: bool) -> Iterator[Block]:
    for content, first, file_bytes in _cut(file, path, block_bytes, _end_of_lines, skip_bad):
        yield Block(
            kind="json",
            name=file.name,
            first=first,
            content=content,
            num_bytes=len(content),
            file_bytes=file_bytes,
        )


def _read_csv(file: SourceFile, path: Path, block_bytes: int) -> Iterator[Block]:
    header: tuple[str, ...] = ()
    delimiter = ","
    for content, first, file_bytes in _cut(file, path, block_bytes, _end_of_quoted_lines):
        if not header:
            header, delimiter, length = read_header(content, file.name)
            first = content.count(b"\n", 0, length)
            content = content[length:]
        yield Block(
            kind="csv",
            name=file.name,
            first=first,
            content=content,
            num_bytes=len(content),
            file_bytes=file_bytes,
            header=header,
            delimiter=delimiter,
        )


def _cut(
    file: SourceFile,
    path: Path,
    block_bytes: int,
    end_of_records: Callable[[bytes], int],
    skip_long: bool = False,
) -> Iterator[tuple[bytes, int, int]]:
    """Yield blocks of whole lines, with the lines before each and the bytes read for it.

    Of a line that is too long and skipped, the beginning stays: a record that cannot be read.
    """
    waiting: list[bytes] = []
    num_waiting = first = last_place = place = 0
    try:
        for chunk, place in read_chunks(path, chunk_bytes=block_bytes):
            if num_waiting > MAX_RECORD_BYTES and b"\n" not in chunk:
                continue
            waiting.append(chunk)
            num_waiting += len(chunk)
            if b"\n" in chunk:
                content = _without_long_line(waiting, num_waiting)
                end = end_of_records(content)
                waiting, num_waiting = [content[end:]], len(content) - end
                if end:
                    block = content[:end] if first else content[:end].removeprefix(_BOM)
                    num_lines = content.count(b"\n", 0, end)
                    del content, chunk
                    yield block, first, place - last_place
                    first, last_place = first + num_lines, place
            if num_waiting > MAX_RECORD_BYTES and not skip_long:
                raise _too_long(f"{file.name}, what follows line {first:,},", MAX_RECORD_BYTES)
    except DAMAGE as error:
        raise damaged(file.name, f"line {first:,}", error) from error
    if num_waiting:
        rest = _without_long_line(waiting, num_waiting)
        yield rest if first else rest.removeprefix(_BOM), first, place - last_place


def _without_long_line(waiting: list[bytes], num_waiting: int) -> bytes:
    """Join what waits; of a first line that is too long, only enough to see that it is broken."""
    if num_waiting <= MAX_RECORD_BYTES + len(waiting[-1]):
        return b"".join(waiting)
    _, line_end, rest = waiting[-1].partition(b"\n")
    return b"{ a line that is too long" + line_end + rest


def _end_of_lines(content: bytes) -> int:
    return content.rfind(b"\n") + 1


def _end_of_quoted_lines(content: bytes) -> int:
    """Return where the last line ends outside of quotes: inside, line ends are text."""
    num_quotes = content.count(b'"')
    end = len(content)
    while (line_end := content.rfind(b"\n", 0, end)) >= 0:
        num_quotes -= content.count(b'"', line_end, end)
        if num_quotes % 2 == 0:
            return line_end + 1
        end = line_end
    return 0


def _make_blocks(name: str, seed: int, block_bytes: int) -> Iterator[Block]:
    """Yield what `demo://stories/N` or `demo://conversations/N` stands for."""
    kind, _, count = name.removeprefix(DEMO_PREFIX).partition("/")
    if kind not in ("stories", "conversations") or not _is_count(count):
        raise ValueError(
            f"path is {name!r}: it must be {DEMO_PREFIX}stories/N or {DEMO_PREFIX}conversations/N "
            f"with how many to make, such as {DEMO_PREFIX}stories/20000"
        )
    make = demo_corpus.conversations if kind == "conversations" else demo_corpus.stories
    yield from made_blocks(make(int(count), seed=seed), name=name, block_bytes=block_bytes)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) > 0


def _too_long(place: str, limit: int) -> ValueError:
    return ValueError(
        f"{place} is longer than {limit >> 20} MB without an end (a quote that is not closed, or "
        "no text); cut it into documents"
    )
