"""Writing token files, and joining the indexes of their parts.

Everything goes through `write()` to a name of its own, is forced to the disk and renamed, so that
a file that has its name is complete. What a token file is, and reading it, is `token_file.py`'s.
"""

import contextlib
import hashlib
import io
import os
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from dimgpt.data.manifest import TokenFileSummary, TokenPart, token_dtype
from dimgpt.data.token_file import check_ids
from dimgpt.files import sync_folder


class TokenFileWriter:
    """Write one token file of one part; it and its index get their names when all is on disk.

    A context manager: leaving it by an exception removes what was written and touches nothing else.
    The offsets wait in memory, 8 bytes a document. `summary` is set once the file is finished.
    """

    summary: TokenFileSummary

    def __init__(self, folder: Path, name: str, *, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.path = folder / f"{name}.bin"
        self.index_path = folder / f"{name}.index.npy"
        self._partial_path = folder / f"{name}.bin.partial"
        self._dtype = token_dtype(vocab_size)
        self._hash = hashlib.sha256()
        self._offsets = array("q", [0])
        self._num_characters = 0
        self._num_bytes = 0
        self._largest_id = 0

    def __enter__(self) -> "TokenFileWriter":
        self._file: BinaryIO = self._partial_path.open("wb")
        return self

    def write_documents(
        self,
        ids: np.ndarray[Any, Any],
        lengths: np.ndarray[Any, Any],
        *,
        num_characters: int,
        num_bytes: int,
    ) -> None:
        """Append documents.

        Args:
            ids: Their ids, concatenated, any integer type.
            lengths: Tokens of each document, at least 1; they add up to `len(ids)`.
            num_characters: Characters of their cleaned text.
            num_bytes: UTF-8 bytes of their cleaned text.

        Raises:
            ValueError: An id lies outside the vocabulary, or a document is empty.
            OSError: The disk is full or cannot be written.
        """
        if not len(lengths):
            return
        if lengths.min() < 1 or lengths.sum() != len(ids):
            raise ValueError(
                f"{self.path}: lengths add up to {lengths.sum()} and the shortest is "
                f"{lengths.min()}: they must add up to {len(ids)} ids and be at least 1"
            )
        check_ids(ids, vocab_size=self.vocab_size, first_offset=self._offsets[-1], path=self.path)
        content = ids.astype(self._dtype).tobytes()
        with _said_in_one_line(self.path):
            self._file.write(content)
        self._hash.update(content)
        self._offsets.frombytes((np.cumsum(lengths, dtype=np.int64) + self._offsets[-1]).tobytes())
        self._num_characters += num_characters
        self._num_bytes += num_bytes
        self._largest_id = max(self._largest_id, int(ids.max()))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            try:
                self._file.close()
            finally:
                self._partial_path.unlink(missing_ok=True)

    def _finish(self) -> None:
        """Write the index, force both files to the disk, give them their names."""
        with _said_in_one_line(self.path):
            _sync_file(self._file)
            self._file.close()
        self._partial_path.replace(self.path)
        num_tokens = self._offsets[-1]
        offsets = np.frombuffer(self._offsets, dtype="<i8")
        index_sha256 = _write_index(self.index_path, [offsets[1:]], num_documents=len(offsets) - 1)
        part = TokenPart(name=self.path.name, num_tokens=num_tokens, sha256=self._hash.hexdigest())
        self.summary = TokenFileSummary(
            num_documents=len(self._offsets) - 1,
            num_tokens=num_tokens,
            num_characters=self._num_characters,
            num_bytes=self._num_bytes,
            largest_id=self._largest_id,
            parts=(part,),
            index_sha256=index_sha256,
        )


def join_parts(
    folder: Path, name: str, pieces: Iterable[tuple[Path, TokenFileSummary]]
) -> TokenFileSummary:
    """Make one token file of several, without touching their ids: only the index is written.

    Args:
        folder: Gets `NAME.index.npy`.
        name: Name of the whole.
        pieces: Index and summary of each piece, in their order; at least one. The names of their
            parts must be those seen from `folder`.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    indexes, summaries = zip(*pieces, strict=True)
    num_documents = sum(summary.num_documents for summary in summaries)

    def offsets() -> Iterable[np.ndarray[Any, Any]]:
        first = 0
        for index, summary in zip(indexes, summaries, strict=True):
            yield np.load(index, mmap_mode="r", allow_pickle=False)[1:] + first
            first += summary.num_tokens

    index_sha256 = _write_index(
        folder / f"{name}.index.npy", offsets(), num_documents=num_documents
    )
    return TokenFileSummary(
        num_documents=num_documents,
        num_tokens=sum(summary.num_tokens for summary in summaries),
        num_characters=sum(summary.num_characters for summary in summaries),
        num_bytes=sum(summary.num_bytes for summary in summaries),
        largest_id=max(summary.largest_id for summary in summaries),
        parts=tuple(part for summary in summaries for part in summary.parts),
        index_sha256=index_sha256,
    )


def _write_index(path: Path, ends: Iterable[np.ndarray[Any, Any]], *, num_documents: int) -> str:
    """Write the offsets of documents, given where each one ends, piece by piece; return the sha256.

    A reader sees the old file or the new one.
    """
    partial_path = path.with_name(f"{path.name}.partial")
    header = io.BytesIO()
    shape = {"descr": "<i8", "fortran_order": False, "shape": (num_documents + 1,)}
    np.lib.format.write_array_header_1_0(header, shape)
    running_hash = hashlib.sha256()
    try:
        with _said_in_one_line(path), partial_path.open("wb") as file:
            for content in chain([header.getvalue(), bytes(8)], map(_to_bytes, ends)):
                file.write(content)
                running_hash.update(content)
            _sync_file(file)
        partial_path.replace(path)
    finally:
        partial_path.unlink(missing_ok=True)
    sync_folder(path.parent)
    return running_hash.hexdigest()


def _sync_file(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _to_bytes(offsets: np.ndarray[Any, Any]) -> bytes:
    return offsets.astype("<i8").tobytes()


@contextlib.contextmanager
def _said_in_one_line(path: Path) -> Iterator[None]:
    """Turn the error of a full disk into one line that names the file that was to be."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror}; make room on the disk and run again, nothing old was touched"
        raise OSError(error.errno, reason, str(path)) from error
