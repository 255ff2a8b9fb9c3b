"""Finds passages of a text that occur word for word in the training files.

A suffix array lists the positions of a token file, sorted by the text that begins there. So
bisection finds the longest passage that a text shares with the file. Manber and Myers 1993,
https://doi.org/10.1137/0222058; sorted as in Larsson and Sadakane 2007,
https://doi.org/10.1016/j.tcs.2007.07.017.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from dimgpt.data.token_file import TokenFile, read_manifest
from dimgpt.files import lock_file, new_file

log = logging.getLogger(__name__)
Array = np.ndarray[Any, Any]
_MOST_TOKENS = 1 << 28
_BLOCK_LENGTH = 32  # tokens that are compared at once
_ROWS = 4096  # positions of a text that are searched at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """A run of a text's tokens that occurs in a training file."""

    begin: int
    """Index of the first token in the text."""
    end: int
    """Index after the last token."""
    source: str
    document: int
    """Number of the document in the source's file."""
    place: int
    """Index of the first token in that document."""


class PassageIndex:
    """Finds the longest passages that a text shares with the documents of sources."""

    def __init__(self, files: Sequence[tuple[str, TokenFile, Array]]) -> None:
        """Take the name, the file and the suffix array of each source; see `open`."""
        self._files = {name: file for name, file, _ in files}
        self._searches = [
            (name, file.parts[0] if len(file.parts) == 1 else np.concatenate(file.parts), suffixes)
            for name, file, suffixes in files
        ]

    @classmethod
    def open(
        cls, folders: Sequence[Path], *, fingerprint: str, split: str = "train"
    ) -> "PassageIndex":
        """Open the token files of sources with their suffix arrays.

        A suffix array is built once and saved next to its token file, with the hash of the file in
        its name. It takes 4 bytes a token on disk, and about 40 bytes of memory a token to build.

        Args:
            folders: One per source, such as `data/NAME/pretraining/SOURCE`, with its name.
            fingerprint: sha256 of the vocabulary that the ids must belong to.
            split: Name of the token file in each folder.

        Raises:
            FileNotFoundError, ValueError: As `TokenFile`; or a file has too many tokens.
        """
        return cls([(folder.name, *_open(folder, split, fingerprint)) for folder in folders])

    def longest(self, ids: Sequence[int], *, min_tokens: int = 20) -> list[Passage]:
        """Return the runs of a text that occur in a document, without runs inside longer ones.

        Each run is returned with one place where it occurs. No run crosses a document's border.

        Args:
            ids: The text.
            min_tokens: Shorter runs are left out.
        """
        best, sources, places = self._search(ids)
        ends, passages = np.arange(len(ids)) + best, []
        for begin in np.flatnonzero(best >= max(1, min_tokens)).tolist():
            if begin == 0 or ends[begin] > ends[begin - 1]:
                source = self._searches[sources[begin]][0]
                offsets = self._files[source].offsets
                document = int(np.searchsorted(offsets, places[begin], side="right")) - 1
                passage = Passage(
                    begin=begin,
                    end=int(ends[begin]),
                    source=source,
                    document=document,
                    place=int(places[begin] - offsets[document]),
                )
                passages.append(passage)
        return passages

    def document(self, passage: Passage) -> Array:
        """Return the ids of the document that a passage was found in."""
        return self._files[passage.source].document(passage.document)

    def _search(self, ids: Sequence[int]) -> tuple[Array, Array, Array]:
        """Return the longest run from each token: its length, source and place."""
        text = np.asarray(ids, dtype=np.int64).reshape(-1)
        best, sources, places = np.zeros((3, len(text)), dtype=np.int64)
        for number, (name, tokens, suffixes) in enumerate(self._searches):
            for first in range(0, len(text), _ROWS):
                rows = np.arange(first, min(first + _ROWS, len(text)))
                for found in _neighbours(tokens, suffixes, text, rows):
                    offsets = self._files[name].offsets
                    ends = offsets[np.searchsorted(offsets, found, side="right")]
                    lengths = np.minimum(_common(tokens, found, text, rows), ends - found)
                    better = lengths > best[rows]
                    chosen = rows[better]
                    best[chosen], sources[chosen] = lengths[better], number
                    places[chosen] = found[better]
        return best, sources, places


def sort_suffixes(tokens: Array) -> Array:
    """Return the positions of N tokens, sorted by the text from there to the end, int64 (N,).

    If one text is the beginning of another, it comes first.
    """
    num_tokens, bits = len(tokens), 16 if tokens.dtype.itemsize == 2 else 32
    width = 64 // bits  # tokens that fit in one key
    padded = np.concatenate((tokens.astype(np.uint64) + np.uint64(1), np.zeros(width, np.uint64)))
    keys = np.zeros(num_tokens, dtype=np.uint64)
    for shift in range(width):
        keys = (keys << np.uint64(bits)) | padded[shift : shift + num_tokens]
    del padded
    order = np.argsort(keys)
    ranks = np.full(num_tokens + 1, -1)  # the slot of the first suffix that is equal so far
    slots = np.arange(num_tokens)
    keys = keys[order]
    while len(slots):
        begins = np.append(True, keys[1:] != keys[:-1])
        firsts = np.maximum.accumulate(np.where(begins, np.arange(len(slots)), 0))
        ranks[order[slots]] = slots[firsts]
        slots = slots[~(begins & np.append(begins[1:], True))]  # those with an equal neighbour
        places = order[slots]
        keys = (ranks[places] << 32) | (ranks[places + width] + 1)
        by_key = np.argsort(keys)
        order[slots], keys = places[by_key], keys[by_key]
        width *= 2
    return order


def _open(folder: Path, split: str, fingerprint: str) -> tuple[TokenFile, Array]:
    file = TokenFile(folder, split, fingerprint=fingerprint)
    if file.num_tokens > _MOST_TOKENS:
        raise ValueError(
            f"{folder} has {file.num_tokens:,} tokens in {split!r}: the limit is {_MOST_TOKENS:,}; "
            "index a smaller source"
        )
    parts = read_manifest(folder).files[split].parts
    digest = sha256("".join(part.sha256 for part in parts).encode()).hexdigest()[:16]
    path = folder / f"{split}.{digest}.suffixes.npy"
    try:
        suffixes = np.load(path, mmap_mode="r", allow_pickle=False)
        if suffixes.shape == (file.num_tokens,) and suffixes.dtype == np.int32:
            if suffixes.min() >= 0 and suffixes.max() < file.num_tokens:
                return file, np.asarray(suffixes)
    except (OSError, ValueError, EOFError):
        pass  # the file is missing or incomplete
    suffixes = sort_suffixes(np.concatenate(file.parts)).astype(np.int32)
    try:
        with lock_file(folder / f"{split}.suffixes.lock", refusal="another process saves it"):
            for older in folder.glob(f"{split}.*.suffixes.npy"):
                older.unlink()
            with new_file(path) as target:
                np.save(target, suffixes)
    except (OSError, RuntimeError) as error:
        log.warning("%s cannot be saved (%s): it will be built again next time", path, error)
    return file, suffixes


def _neighbours(tokens: Array, suffixes: Array, text: Array, rows: Array) -> tuple[Array, Array]:
    """Return the places in the file whose texts sort just before and after those of the rows."""
    low, high = np.zeros(len(rows), dtype=np.int64), np.full(len(rows), len(suffixes))
    while (is_open := low < high).any():
        middle = np.minimum((low + high) // 2, len(suffixes) - 1)
        places = suffixes[middle].astype(np.int64)
        common = _common(tokens, places, text, rows)
        is_less = _at(tokens, places + common, -1) < _at(text, rows + common, -2)
        low = np.where(is_open & is_less, middle + 1, low)
        high = np.where(is_open & ~is_less, middle, high)
    before, after = np.maximum(low - 1, 0), np.minimum(low, len(suffixes) - 1)
    return suffixes[before].astype(np.int64), suffixes[after].astype(np.int64)


def _common(tokens: Array, places: Array, text: Array, rows: Array) -> Array:
    """Count the tokens that the file at each place and the text at each row have in common."""
    lengths, steps = np.zeros(len(rows), dtype=np.int64), np.arange(_BLOCK_LENGTH)
    equal = np.arange(len(rows))  # rows that may have more tokens in common
    while len(equal):
        theirs = _at(tokens, (places[equal] + lengths[equal])[:, None] + steps, -1)
        ours = _at(text, (rows[equal] + lengths[equal])[:, None] + steps, -2)
        runs = np.logical_and.accumulate(theirs == ours, axis=1).sum(axis=1)
        lengths[equal] += runs
        equal = equal[runs == _BLOCK_LENGTH]
    return lengths


def _at(ids: Array, places: Array, beyond: int) -> Array:
    """Return the ids at places, int64, and `beyond` for places after the last one."""
    found = ids[np.minimum(places, len(ids) - 1)].astype(np.int64)
    return np.where(places < len(ids), found, beyond)
