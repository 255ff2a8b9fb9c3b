"""Token files: documents of token ids on the disk, one after the other, with an index.

A token file has one or more parts, `NAME.bin` or `NAME-00000.bin`, …: each the concatenation of
whole documents (little-endian uint16; uint32 for more than 65,535 tokens). `NAME.index.npy` holds
the int64 offset of every document and of the end, through all parts. `token_writer.py` writes them
with `write()`, and they are mapped only when finished: a map over a full disk or a file that was
cut short kills the process. Nothing here knows what the ids mean.
"""

import functools
import hashlib
import os
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from dimgpt.data.manifest import PREPARE_AGAIN, TokenPart, read_manifest, token_dtype
from dimgpt.files import sha256_of

_BLOCK_BYTES = 1 << 24
_BLOCK_DOCUMENTS = 1 << 20
_MAX_THREADS = 8


class TokenFile:
    """A finished token file, mapped read-only after it was checked against its manifest."""

    def __init__(self, folder: Path, name: str, *, fingerprint: str) -> None:
        """Open the token file `name` of a folder.

        All of it is read once to check every sha256 and every id, at about 1 GB/s a core.

        Args:
            folder: Holds the files and their manifest.
            name: `train`, `validation`, `test`, `system_prompts`.
            fingerprint: sha256 of the vocabulary that the ids must belong to.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A file is not what the manifest says, or of another vocabulary.
        """
        manifest = read_manifest(folder)
        if manifest.vocabulary_sha256 != fingerprint:
            raise ValueError(
                f"{folder} was made with vocabulary {manifest.vocabulary_sha256[:12]}, not with "
                f"{fingerprint[:12]}: its ids mean other tokens; {PREPARE_AGAIN}"
            )
        if name not in manifest.files:
            raise ValueError(f"{folder} has no {name!r}: it has {', '.join(manifest.files)}")
        self.index_path = folder / f"{name}.index.npy"
        self.summary = manifest.files[name]
        self.num_documents = self.summary.num_documents
        self.num_tokens = self.summary.num_tokens
        self.dtype = token_dtype(manifest.vocab_size)
        if self.summary.largest_id >= manifest.vocab_size:
            raise damaged(
                folder / f"{name}.bin",
                f"holds id {self.summary.largest_id} of {manifest.vocab_size} tokens",
            )
        check_parts(folder, self.summary.parts, vocab_size=manifest.vocab_size)
        self.offsets = self._open_index()
        self.parts: tuple[np.ndarray[Any, Any], ...] = tuple(
            # Plain arrays: slices of a memmap are slow to make.
            np.asarray(np.memmap(folder / part.name, dtype=self.dtype, mode="r"))
            for part in self.summary.parts
        )
        self._first_tokens = list(
            accumulate((part.num_tokens for part in self.summary.parts[:-1]), initial=0)
        )

    def document(self, index: int) -> np.ndarray[Any, Any]:
        """Return the ids of one document, mapped, not copied."""
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        number = bisect_right(self._first_tokens, start) - 1
        first = self._first_tokens[number]
        return self.parts[number][start - first : end - first]

    def _open_index(self) -> np.ndarray[Any, Any]:
        _size(self.index_path)
        if sha256_of(self.index_path) != self.summary.index_sha256:
            raise damaged(self.index_path, "has another sha256 than its manifest")
        try:
            offsets = np.load(self.index_path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise damaged(self.index_path, f"is no array ({error})") from error
        if offsets.dtype != np.int64 or offsets.shape != (self.num_documents + 1,):
            raise damaged(self.index_path, f"holds {offsets.dtype} {offsets.shape}")
        is_rising = all(
            bool((np.diff(offsets[first : first + _BLOCK_DOCUMENTS + 1]) > 0).all())
            for first in range(0, self.num_documents, _BLOCK_DOCUMENTS)
        )
        num_tokens = sum(part.num_tokens for part in self.summary.parts)
        is_whole = offsets[0] == 0 and offsets[-1] == num_tokens == self.num_tokens
        if not is_whole or not is_rising:
            raise damaged(self.index_path, f"does not rise from 0 to {self.num_tokens:,}")
        return np.asarray(offsets)


def check_parts(
    folder: Path, parts: Sequence[TokenPart], *, vocab_size: int, verify: bool = True
) -> None:
    """Check the sizes of parts and, several at once, their sha256 and every id.

    Args:
        folder: The names of the parts are relative to it.
        parts: As their manifest describes them.
        vocab_size: Tokens of the vocabulary.
        verify: Read the parts; without it, only their sizes are checked.

    Raises:
        FileNotFoundError: A part is missing.
        ValueError: A part is not what its manifest says.
    """
    for part in parts:
        num_bytes = part.num_tokens * token_dtype(vocab_size).itemsize
        found = _size(folder / part.name)
        if found != num_bytes or not num_bytes:
            raise damaged(folder / part.name, f"has {found:,} bytes instead of {num_bytes:,}")
    if verify:
        with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as executor:
            check = functools.partial(_check_part, folder, vocab_size=vocab_size)
            list(executor.map(check, parts))


def check_ids(ids: np.ndarray[Any, Any], *, vocab_size: int, first_offset: int, path: Path) -> None:
    """Refuse ids outside the vocabulary: on a GPU they would end the process.

    Raises:
        ValueError: Names the first such id and its offset in the file.
    """
    if ids.max() < vocab_size and ids.min() >= 0:
        return
    place = int(np.argmax((ids >= vocab_size) | (ids < 0)))
    raise damaged(
        path,
        f"has id {int(ids[place])} at offset {first_offset + place:,}, outside the vocabulary of "
        f"{vocab_size:,} tokens",
    )


def damaged(path: Path, what: str) -> ValueError:
    """Return the error of a file that is not what its manifest says."""
    return ValueError(f"{path} {what}; {PREPARE_AGAIN}")


def _check_part(folder: Path, part: TokenPart, *, vocab_size: int) -> None:
    """Read one part; other threads run while it is hashed."""
    path, dtype = folder / part.name, token_dtype(vocab_size)
    running_hash = hashlib.sha256()
    first_offset = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            running_hash.update(block)
            ids = np.frombuffer(block, dtype=dtype)
            check_ids(ids, vocab_size=vocab_size, first_offset=first_offset, path=path)
            first_offset += len(ids)
    if running_hash.hexdigest() != part.sha256:
        raise damaged(path, "has another sha256 than its manifest")


def _size(path: Path) -> int:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, though the manifest names it; {PREPARE_AGAIN}")
    return path.stat().st_size
