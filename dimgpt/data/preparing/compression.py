"""The bytes of a file, decompressed on the way, in chunks of one size.

A file that is cut short is an error, not a shorter file.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
"""What reading a damaged file raises."""

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
        if path.suffix == ".zst":
            yield from _read_zst(file, chunk_bytes)
            return
        content = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        while chunk := content.read(chunk_bytes):
            yield chunk, file.tell()


def _read_zst(file: BinaryIO, chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    waiting = bytearray()
    for content in _decompress_frames(file):
        waiting += content
        while len(waiting) >= chunk_bytes:
            yield bytes(waiting[:chunk_bytes]), file.tell()
            del waiting[:chunk_bytes]
    if waiting:
        yield bytes(waiting), file.tell()


def _decompress_frames(file: BinaryIO) -> Iterator[bytes]:
    """Yield what the frames of a file hold; the library's own reader takes half a frame for one."""
    frame = None
    rest = b""
    while rest or (rest := file.read(_COMPRESSED_BYTES)):
        frame = frame or zstandard.ZstdDecompressor().decompressobj()
        yield frame.decompress(rest)
        rest = frame.unused_data if frame.eof else b""
        if frame.eof:
            frame = None
    if frame is not None:
        raise EOFError("the last frame ends too early")
