"""Token files: documents of token ids on disk, one after the other, with an index.

`NAME.bin` is the plain concatenation of the documents (little-endian uint16; uint32 for more than
65,535 tokens), `NAME.index.npy` the int64 offset of every document and of the end. Files are
written with `write()` and mapped only when finished: a map over a full disk or a file cut short
kills the process. Nothing here knows what the ids mean.
"""

import hashlib
import io
import os
from array import array
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from dimgpt.data.manifest import (
    PREPARE_AGAIN,
    TokenFileSummary,
    read_manifest,
    token_dtype,
)
from dimgpt.files import sha256_of, sync_folder

_BLOCK_BYTES = 1 << 24


class TokenFileWriter:
    """Write one token file and its index; both get their names when all is on disk.

    A context manager: leaving it by an exception removes what was written and touches nothing else.
    The offsets wait in memory, 8 bytes a document. `summary` is set once the file is finished.
    """

    summary: TokenFileSummary

    def __init__(self, folder: Path, name: str, *, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.path = folder / f"{name}.bin"
        self.index_path = folder / f"{name}.index.npy"
        self._partial_path = folder / f"{name}.bin.partial"
        self._partial_index_path = folder / f"{name}.index.npy.partial"
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
        self._write(self._file, self._hash, ids.astype(self._dtype).tobytes())
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
            self._file.close()
            self._partial_path.unlink(missing_ok=True)
            self._partial_index_path.unlink(missing_ok=True)

    def _finish(self) -> None:
        """Write the index, force both files to the disk, give them their names."""
        index = io.BytesIO()
        np.save(index, np.frombuffer(self._offsets, dtype="<i8"), allow_pickle=False)
        index_hash = hashlib.sha256()
        with self._partial_index_path.open("wb") as index_file:
            self._write(index_file, index_hash, index.getvalue())
            _sync_file(index_file)
        _sync_file(self._file)
        self._file.close()
        self._partial_path.replace(self.path)
        self._partial_index_path.replace(self.index_path)
        sync_folder(self.path.parent)
        self.summary = TokenFileSummary(
            num_documents=len(self._offsets) - 1,
            num_tokens=self._offsets[-1],
            num_characters=self._num_characters,
            num_bytes=self._num_bytes,
            largest_id=self._largest_id,
            ids_sha256=self._hash.hexdigest(),
            index_sha256=index_hash.hexdigest(),
        )

    def _write(self, file: BinaryIO, running_hash: Any, content: bytes) -> None:
        try:
            file.write(content)
        except OSError as error:
            reason = (
                f"{error.strerror}; make room on the disk and run again, nothing old was touched"
            )
            raise OSError(error.errno, reason, str(self.path)) from error
        running_hash.update(content)


class TokenFile:
    """A finished token file, mapped read-only after it was checked against its manifest."""

    def __init__(self, folder: Path, name: str, *, fingerprint: str, verify: bool = True) -> None:
        """Open `folder/name.bin`.

        Args:
            folder: Holds the files and their manifest.
            name: `train`, `validation`, `system_prompts`.
            fingerprint: sha256 of the vocabulary that the ids must belong to.
            verify: Read both files once to check their sha256 and every id (about 1 GB/s).

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
        self.path = folder / f"{name}.bin"
        self.index_path = folder / f"{name}.index.npy"
        self.summary = manifest.files[name]
        self.num_documents = self.summary.num_documents
        self.num_tokens = self.summary.num_tokens
        dtype = token_dtype(manifest.vocab_size)
        self._check_ids_file(dtype, vocab_size=manifest.vocab_size, verify=verify)
        self.offsets = self._open_index(verify=verify)
        self.ids: np.ndarray[Any, Any] = np.memmap(self.path, dtype=dtype, mode="r")

    def document(self, index: int) -> np.ndarray[Any, Any]:
        """Return the ids of one document, mapped, not copied."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def _check_ids_file(self, dtype: np.dtype[Any], *, vocab_size: int, verify: bool) -> None:
        num_bytes = self.num_tokens * dtype.itemsize
        if _size(self.path) != num_bytes or not num_bytes:
            raise _damaged(self.path, f"has {_size(self.path):,} bytes instead of {num_bytes:,}")
        if self.summary.largest_id >= vocab_size:
            raise _damaged(self.path, f"holds id {self.summary.largest_id} of {vocab_size} tokens")
        if not verify:
            return
        running_hash = hashlib.sha256()
        first_offset = 0
        with self.path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                running_hash.update(block)
                ids = np.frombuffer(block, dtype=dtype)
                check_ids(ids, vocab_size=vocab_size, first_offset=first_offset, path=self.path)
                first_offset += len(ids)
        if running_hash.hexdigest() != self.summary.ids_sha256:
            raise _damaged(self.path, "has another sha256 than its manifest")

    def _open_index(self, *, verify: bool) -> np.ndarray[Any, Any]:
        _size(self.index_path)
        if verify and sha256_of(self.index_path) != self.summary.index_sha256:
            raise _damaged(self.index_path, "has another sha256 than its manifest")
        try:
            offsets = np.load(self.index_path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise _damaged(self.index_path, f"is no array ({error})") from error
        if offsets.dtype != np.int64 or offsets.shape != (self.num_documents + 1,):
            raise _damaged(self.index_path, f"holds {offsets.dtype} {offsets.shape}")
        is_rising = not verify or bool((np.diff(offsets) > 0).all())
        if offsets[0] != 0 or offsets[-1] != self.num_tokens or not is_rising:
            raise _damaged(self.index_path, f"does not rise from 0 to {self.num_tokens:,}")
        return offsets


def check_ids(ids: np.ndarray[Any, Any], *, vocab_size: int, first_offset: int, path: Path) -> None:
    """Refuse ids outside the vocabulary here, on the CPU: on a GPU they end the process.

    Raises:
        ValueError: Names the first such id and its offset in the file.
    """
    if ids.max() < vocab_size and ids.min() >= 0:
        return
    place = int(np.argmax((ids >= vocab_size) | (ids < 0)))
    raise _damaged(
        path,
        f"has id {int(ids[place])} at offset {first_offset + place:,}, outside the vocabulary of "
        f"{vocab_size:,} tokens",
    )


def _sync_file(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _size(path: Path) -> int:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, though the manifest names it; {PREPARE_AGAIN}")
    return path.stat().st_size


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} {what}; {PREPARE_AGAIN}")
