"""Writes token files, and joins the indexes of their parts.

A file is written with `write()` under a temporary name, flushed to the disk and renamed: a file
with its final name is complete. `token_file.py` describes the format and reads it.
"""

import contextlib
import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from dimgpt.data.token_file import TokenFileSummary, TokenPart, check_ids, token_dtype
from dimgpt.files import new_file, sha256_of


class TokenFileWriter:
    """Writes a token file of one part; renames it and its index once both are on the disk.

    A context manager: an exception inside removes what was written and keeps older files. The
    offsets stay in memory, 8 bytes a document. `summary` is set at the end.
    """

    summary: TokenFileSummary

    def __init__(self, folder: Path, name: str, *, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.path = folder / f"{name}.bin"
        self.index_path = folder / f"{name}.index.npy"
        self._dtype = token_dtype(vocab_size)
        self._hash = hashlib.sha256()
        self._offsets = array("q", [0])
        self._num_characters = 0
        self._num_bytes = 0
        self._num_raw_bytes: int | None = 0
        self._largest_id = 0

    def __enter__(self) -> "TokenFileWriter":
        self._stack = contextlib.ExitStack()
        self._file = self._stack.enter_context(new_file(self.path))
        return self

    def write_documents(
        self,
        ids: np.ndarray[Any, Any],
        lengths: np.ndarray[Any, Any],
        *,
        num_characters: int,
        num_bytes: int,
        num_raw_bytes: int | None = None,
    ) -> None:
        """Append documents.

        Args:
            ids: Their ids, concatenated, any integer type.
            lengths: Tokens of each document, at least 1; they add up to `len(ids)`.
            num_characters: Characters of their cleaned text.
            num_bytes: UTF-8 bytes of their cleaned text.
            num_raw_bytes: UTF-8 bytes before cleaning, if known.

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
        with _naming(self.path):
            self._file.write(content)
        self._hash.update(content)
        self._offsets.frombytes((np.cumsum(lengths, dtype=np.int64) + self._offsets[-1]).tobytes())
        self._num_characters += num_characters
        self._num_bytes += num_bytes
        self._num_raw_bytes = _sum_known([self._num_raw_bytes, num_raw_bytes])
        self._largest_id = max(self._largest_id, int(ids.max()))

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            self._stack.__exit__(*error)
            return
        with _naming(self.path):
            self._stack.close()
        num_documents, num_tokens = len(self._offsets) - 1, self._offsets[-1]
        ends = np.frombuffer(self._offsets, dtype="<i8")[1:]
        part = TokenPart(name=self.path.name, num_tokens=num_tokens, sha256=self._hash.hexdigest())
        self.summary = TokenFileSummary(
            num_documents=num_documents,
            num_tokens=num_tokens,
            num_characters=self._num_characters,
            num_bytes=self._num_bytes,
            largest_id=self._largest_id,
            parts=(part,),
            index_sha256=_write_index(self.index_path, [ends], num_documents),
            num_raw_bytes=self._num_raw_bytes,
        )


def join_parts(
    folder: Path, name: str, pieces: Iterable[tuple[Path, TokenFileSummary]]
) -> TokenFileSummary:
    """Make one token file of several by writing a joint index; the ids are not copied.

    Args:
        folder: Gets `NAME.index.npy`.
        name: Name of the joint file.
        pieces: Index and summary of each piece, in their order; at least one. The names of their
            parts must be relative to `folder`.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    indexes, summaries = zip(*pieces, strict=True)
    num_documents = sum(summary.num_documents for summary in summaries)
    first_tokens = accumulate((summary.num_tokens for summary in summaries), initial=0)
    ends = (
        np.load(index, mmap_mode="r", allow_pickle=False)[1:] + first
        for index, first in zip(indexes, first_tokens, strict=False)
    )
    return TokenFileSummary(
        num_documents=num_documents,
        num_tokens=sum(summary.num_tokens for summary in summaries),
        num_characters=sum(summary.num_characters for summary in summaries),
        num_bytes=sum(summary.num_bytes for summary in summaries),
        largest_id=max(summary.largest_id for summary in summaries),
        parts=tuple(part for summary in summaries for part in summary.parts),
        index_sha256=_write_index(folder / f"{name}.index.npy", ends, num_documents),
        num_raw_bytes=_sum_known([summary.num_raw_bytes for summary in summaries]),
    )


def _sum_known(counts: Sequence[int | None]) -> int | None:
    """Return the sum of counts; `None` if one of them is `None`."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _write_index(path: Path, ends: Iterable[np.ndarray[Any, Any]], num_documents: int) -> str:
    """Write the offsets of documents, given their ends, and return the sha256.

    The ends come in pieces, and one piece at a time is in memory. A reader sees the old file or the
    new one.
    """
    header = {"descr": "<i8", "fortran_order": False, "shape": (num_documents + 1,)}
    with _naming(path), new_file(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(8))
        for piece in ends:
            file.write(piece.astype("<i8").tobytes())
    return sha256_of(path)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in the error of a full disk, and say what to do."""
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror}; make room on the disk and run again, no older file was changed"
        raise OSError(error.errno, reason, str(path)) from error
