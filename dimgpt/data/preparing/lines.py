"""The bytes of a file, decompressed on the way: whole, or cut into pieces at line ends.

A file that is cut short is an error, not a shorter file. What the lines say is not looked at.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

Piece = tuple[bytes, int, int]
"""Bytes of whole records; how many lines or rows; bytes of the file that were read by then."""

MAX_RECORD_BYTES = 1 << 26
"""A longer line is refused: parsing takes up to twelve times its size of memory."""
MAX_TEXT_BYTES = 1 << 28
"""A longer text file, or list in a `.json` file, is refused."""
DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
"""What reading a damaged file raises."""

_TEXT_CHUNK_BYTES = 1 << 20
# Small, since a few bytes may stand for many.
_COMPRESSED_BYTES = 1 << 14


def read_chunks(path: Path, *, chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Yield the content of a file in chunks, all of `chunk_bytes` but the last.

    Yields:
        A chunk, and how many bytes of the file, as it lies on the disk, have been read by then.

    Raises:
        EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError: The file is damaged.
    """
    with path.open("rb") as file:
        if path.suffix.lower() == ".zst":
            yield from _read_zst(file, chunk_bytes)
            return
        content = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
        while chunk := content.read(chunk_bytes):
            yield chunk, file.tell()


def _read_zst(file: BinaryIO, chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Decompress all frames of a file; the library's own reader takes half a frame for a whole."""
    waiting = bytearray()
    frame, rest = None, b""
    while rest or (rest := file.read(_COMPRESSED_BYTES)):
        frame = frame or zstandard.ZstdDecompressor().decompressobj()
        waiting += frame.decompress(rest)
        rest = frame.unused_data if frame.eof else b""
        if frame.eof:
            frame = None
        while len(waiting) >= chunk_bytes:
            yield bytes(waiting[:chunk_bytes]), file.tell()
            del waiting[:chunk_bytes]
    if frame is not None:
        raise EOFError("the last frame ends too early")
    if waiting:
        yield bytes(waiting), file.tell()


def read_whole(path: Path, *, name: str, remedy: str) -> bytes:
    """Return the content of a file.

    Args:
        path: The file.
        name: The file, for the error.
        remedy: What to do if it is too long.

    Raises:
        ValueError: It is longer than `MAX_TEXT_BYTES`.
        EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError: The file is damaged.
    """
    content = bytearray()
    for chunk, _ in read_chunks(path, chunk_bytes=_TEXT_CHUNK_BYTES):
        content += chunk
        if len(content) > MAX_TEXT_BYTES:
            raise ValueError(f"{name} is longer than {MAX_TEXT_BYTES >> 20} MB; {remedy}")
    return bytes(content)


def cut_lines(
    path: Path, *, name: str, piece_bytes: int, has_quotes: bool = False, skip_long: bool = False
) -> Iterator[Piece]:
    """Cut a file at line ends.

    Args:
        path: The file.
        name: The file, for the error.
        piece_bytes: About how much a piece holds.
        has_quotes: Do not cut at line ends within double quotes.
        skip_long: Replace a line that is too long by one that cannot be parsed.

    Raises:
        ValueError: A line is longer than `MAX_RECORD_BYTES`.
        EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError: The file is damaged.
    """
    waiting: list[bytes] = []
    num_waiting = first = place = 0
    for chunk, place in read_chunks(path, chunk_bytes=piece_bytes):
        if num_waiting > MAX_RECORD_BYTES and b"\n" not in chunk:
            continue
        waiting.append(chunk)
        num_waiting += len(chunk)
        if b"\n" in chunk:
            content = _join(waiting, num_waiting)
            end = _end_of_quoted_lines(content) if has_quotes else content.rfind(b"\n") + 1
            waiting, num_waiting = [content[end:]], len(content) - end
            if end:
                piece, num_lines = content[:end], content.count(b"\n", 0, end)
                first += num_lines
                del content, chunk
                yield piece, num_lines, place
        if num_waiting > MAX_RECORD_BYTES and not skip_long:
            raise ValueError(
                f"{name}, what follows line {first:,}, is longer than {MAX_RECORD_BYTES >> 20} MB "
                "without an end; look for a quote that is not closed, or cut it into documents"
            )
    if num_waiting:
        yield _join(waiting, num_waiting), 0, place


def _join(waiting: list[bytes], num_waiting: int) -> bytes:
    """Join what waits; of a first line that is too long, only enough to see that it is broken."""
    if num_waiting <= MAX_RECORD_BYTES + len(waiting[-1]):
        return b"".join(waiting)
    _, line_end, rest = waiting[-1].partition(b"\n")
    return b"{ a line that is too long" + line_end + rest


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
