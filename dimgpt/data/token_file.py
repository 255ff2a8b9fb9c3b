"""Token files: documents of token ids on the disk, one after the other, with an index.

A token file has one or more parts, `NAME.bin` or `NAME-00000.bin`, …: each is a concatenation of
documents (little-endian uint16; uint32 for more than 65,535 tokens). `NAME.index.npy` has the int64
offset of every document and of the end, through all parts. `manifest.json` describes the files of a
folder and their source; it is written last, so a folder without one is unfinished.
`token_writer.py` writes token files. This file checks token files before it memory-maps them:
reading a map of a truncated file kills the process.
"""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimgpt.files import replace_file, sha256_of
from dimgpt.settings import from_dict, to_dict

MANIFEST_NAME = "manifest.json"
SYSTEM_PROMPTS = "system_prompts"
"""Name of the token file of a group's system prompts."""
PREPARE_AGAIN = "prepare it again with create_data.ipynb or `python -m dimgpt prepare`"
_FORMAT_VERSION = 2
_BLOCK_BYTES = 1 << 24
_MAX_THREADS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenPart:
    """One `.bin` file of a token file."""

    name: str
    """Path of the file, relative to the manifest's folder and inside it."""
    num_tokens: int
    sha256: str

    def __post_init__(self) -> None:
        path = Path(self.name)
        if path.is_absolute() or ".." in path.parts or "\\" in self.name:
            raise ValueError(f"part {self.name!r} lies outside the folder")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenFileSummary:
    """The content of one token file."""

    num_documents: int
    num_tokens: int
    num_characters: int
    """Characters of the cleaned text."""
    num_bytes: int
    """UTF-8 bytes of the cleaned text."""
    largest_id: int
    parts: tuple[TokenPart, ...]
    """In their order."""
    index_sha256: str
    """One index for all parts."""
    num_raw_bytes: int | None = None
    """UTF-8 bytes of the text before cleaning; `None` if unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The content of a folder of token files, and its source."""

    vocabulary_sha256: str
    vocab_size: int
    source: dict[str, Any]
    """The settings that determine the content; while they are unchanged, the files stay valid."""
    dropped: dict[str, int]
    """Number of dropped documents by reason."""
    files: dict[str, TokenFileSummary]
    source_files: dict[str, str] | None = None
    """SHA-256 of each file of the source on this disk; `None` if unknown."""


class TokenFile:
    """A finished token file, mapped read-only after it was checked against its manifest."""

    def __init__(self, folder: Path, name: str, *, fingerprint: str) -> None:
        """Open a token file.

        The file is read once, completely, to check every sha256 and id, at about 1 GB/s a core.

        Args:
            folder: Holds the files and their manifest.
            name: `train`, `validation`, `test`, `system_prompts`.
            fingerprint: sha256 of the vocabulary that the ids must belong to.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A file differs from the manifest, or is of another vocabulary.
        """
        manifest = read_manifest(folder)
        if manifest.vocabulary_sha256 != fingerprint:
            raise ValueError(
                f"{folder} was made with vocabulary {manifest.vocabulary_sha256[:12]}, not with "
                f"{fingerprint[:12]}: its ids mean other tokens; {PREPARE_AGAIN}"
            )
        if name not in manifest.files:
            raise ValueError(f"{folder} has no {name!r}: it has {', '.join(manifest.files)}")
        self.summary = summary = manifest.files[name]
        self.num_documents, self.num_tokens = summary.num_documents, summary.num_tokens
        self.dtype = token_dtype(manifest.vocab_size)
        if summary.largest_id >= manifest.vocab_size:
            what = f"holds id {summary.largest_id} of {manifest.vocab_size} tokens"
            raise _damaged(folder / f"{name}.bin", what)
        check_parts(folder, summary.parts, vocab_size=manifest.vocab_size)
        self.offsets = _open_index(folder / f"{name}.index.npy", summary)
        """First token of each document, and the end, int64 (N + 1,)."""
        self.parts: tuple[np.ndarray[Any, Any], ...] = tuple(
            # Plain arrays: slices of a memmap are slow to make.
            np.asarray(np.memmap(folder / part.name, dtype=self.dtype, mode="r"))
            for part in summary.parts
        )
        self._part_starts = np.cumsum([0, *map(len, self.parts[:-1])])

    def document(self, index: int) -> np.ndarray[Any, Any]:
        """Return the ids of one document as a view of the mapped file."""
        start, end = self.offsets[index], self.offsets[index + 1]
        part = int(np.searchsorted(self._part_starts, start, side="right")) - 1
        first = self._part_starts[part]
        return self.parts[part][start - first : end - first]


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Return the smallest integer type that holds every id of a vocabulary."""
    return np.dtype("<u2") if vocab_size <= 65_535 else np.dtype("<u4")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` atomically: a reader sees the old one or the new."""
    values = {
        "format_version": _FORMAT_VERSION,
        "dtype": token_dtype(manifest.vocab_size).name,
        **to_dict(manifest),
    }
    content = json.dumps(values, indent=2, ensure_ascii=False)
    replace_file(folder / MANIFEST_NAME, content.encode())


def read_manifest(folder: Path) -> Manifest:
    """Read and check `manifest.json`.

    Raises:
        FileNotFoundError: There is none, because nothing was prepared or the preparation is
            unfinished.
        ValueError: It is damaged, or of another format version.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: {folder.name} is not prepared; {PREPARE_AGAIN}"
        )
    try:
        values = json.loads(path.read_bytes())
        version, dtype = values.pop("format_version"), values.pop("dtype")
        if version == 1:
            _update_first_format(values)
        manifest = from_dict(Manifest, values)
        expected_dtype = token_dtype(manifest.vocab_size).name
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); {PREPARE_AGAIN}") from error
    if version not in (1, _FORMAT_VERSION) or dtype != expected_dtype:
        raise ValueError(
            f"{path} has format {version} and {dtype}: this version reads format "
            f"{_FORMAT_VERSION} and {expected_dtype}; {PREPARE_AGAIN}"
        )
    return manifest


def changed_files(folder: Path) -> dict[str, str]:
    """Compare the files of a source with those that its token files were prepared from.

    Args:
        folder: The token files.

    Returns:
        Name of each file that differs -> "has changed" or "is gone". It is empty if an older
        version prepared the folder, because the content of the source was not recorded then.

    Raises:
        FileNotFoundError, ValueError: As `read_manifest`.
    """
    found = {}
    for name, sha256 in (read_manifest(folder).source_files or {}).items():
        if not (path := Path(name)).is_file():
            found[name] = "is gone"
        elif sha256_of(path) != sha256:
            found[name] = "has changed"
    return found


def _update_first_format(values: dict[str, Any]) -> None:
    """Convert the values of format 1, in which a token file was one part, to today's."""
    for name, entry in values["files"].items():
        sha256 = entry.pop("ids_sha256")
        part = {"name": f"{name}.bin", "num_tokens": entry["num_tokens"], "sha256": sha256}
        entry["parts"] = [part]
    values["dropped"] = {"too_short": values.pop("num_dropped")}


def check_parts(
    folder: Path, parts: Sequence[TokenPart], *, vocab_size: int, verify: bool = True
) -> None:
    """Check the sizes of a folder's parts and, with `verify`, their sha256 and every id.

    Parts are read in parallel.

    Raises:
        FileNotFoundError: A part is missing.
        ValueError: A part differs from its manifest.
    """
    for part in parts:
        num_bytes = part.num_tokens * token_dtype(vocab_size).itemsize
        found = _size(folder / part.name)
        if found != num_bytes or not num_bytes:
            raise _damaged(folder / part.name, f"has {found:,} bytes instead of {num_bytes:,}")
    if verify:
        with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as executor:
            check = functools.partial(_check_part, folder, vocab_size=vocab_size)
            list(executor.map(check, parts))


def check_ids(ids: np.ndarray[Any, Any], *, vocab_size: int, first_offset: int, path: Path) -> None:
    """Refuse ids outside the vocabulary, which would crash a process that uses a GPU.

    Raises:
        ValueError: Names the first such id and its offset in the file.
    """
    if ids.max() < vocab_size and ids.min() >= 0:
        return
    place = int(np.argmax((ids >= vocab_size) | (ids < 0)))
    what = f"has id {int(ids[place])} at offset {first_offset + place:,}"
    raise _damaged(path, f"{what}, outside the vocabulary of {vocab_size:,} tokens")


def _check_part(folder: Path, part: TokenPart, *, vocab_size: int) -> None:
    """Read one part; the hash releases the GIL, so threads run in parallel."""
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
        raise _damaged(path, "has another sha256 than its manifest")


def _open_index(path: Path, summary: TokenFileSummary) -> np.ndarray[Any, Any]:
    _size(path)
    if sha256_of(path) != summary.index_sha256:
        raise _damaged(path, "has another sha256 than its manifest")
    try:
        offsets = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise _damaged(path, f"is not an array ({error})") from error
    if offsets.dtype != np.int64 or offsets.shape != (summary.num_documents + 1,):
        raise _damaged(path, f"holds {offsets.dtype} {offsets.shape}")
    num_tokens = sum(part.num_tokens for part in summary.parts)
    is_whole = offsets[0] == 0 and offsets[-1] == num_tokens == summary.num_tokens
    if not is_whole or not (offsets[1:] > offsets[:-1]).all():
        raise _damaged(path, f"does not rise from 0 to {summary.num_tokens:,}")
    return np.asarray(offsets)


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} {what}; {PREPARE_AGAIN}")


def _size(path: Path) -> int:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, though the manifest names it; {PREPARE_AGAIN}")
    return path.stat().st_size
