"""Batches for pretraining: rows of documents from a mixture of sources.

A row begins at a random token of a random source and runs to the end of that document. Complete
random documents follow, each of a newly drawn source, until the row has `context_length + 1`
tokens. Attention and positions cross the borders between documents, as in the published model.

Rows are drawn and read without a Python loop over rows or tokens. `finetuning.py` uses the same
functions.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimgpt.config import SourceConfig
from dimgpt.data.reading.batch import Array, DrawnBatches
from dimgpt.data.token_file import TokenFile, read_manifest

Pieces = tuple[Array, Array, Array]
"""Pieces of rows, in order: row, place of the first token, number of tokens, each int64 (P,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """One split of several sources."""

    files: tuple[TokenFile, ...]
    ratios: Array
    """Probability of each file, float64, sum 1."""

    @classmethod
    def of(cls, files: Sequence[TokenFile], weights: Sequence[float] | Array) -> "Mixture":
        """Return a mixture that draws each file in proportion to its weight."""
        values = np.asarray(weights, dtype=np.float64)
        return cls(files=tuple(files), ratios=values / values.sum())


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Documents of several sources, drawn in proportion to tokens × multiplier."""

    sources: tuple[SourceConfig, ...]
    train: Mixture
    validation: Mixture
    test: Mixture | None = None
    """For the final evaluation; `None` unless all sources were prepared with a `test_ratio`."""

    @classmethod
    def open(
        cls, folder: Path, sources: Sequence[SourceConfig], tokenizer_fingerprint: str
    ) -> "Corpus":
        """Open the prepared folder of every source, `folder/<source name>`.

        The multipliers apply here: after changing one, nothing is tokenized again. The fingerprint
        is the sha256 of the vocabulary that the files must belong to.

        Raises:
            FileNotFoundError: A source is not prepared.
            ValueError: There is no source, or a file is damaged or of another vocabulary.
        """
        if not sources:
            raise ValueError("sources is empty: name one in DataConfig.sources")
        open_file = functools.partial(TokenFile, fingerprint=tokenizer_fingerprint)
        multipliers = np.array([source.multiplier for source in sources])
        manifests = [read_manifest(folder / source.name) for source in sources]
        has_test = all("test" in manifest.files for manifest in manifests)
        splits = {}
        for split in ("train", "validation", *(["test"] if has_test else [])):
            files = [open_file(folder / source.name, split) for source in sources]
            splits[split] = Mixture.of(files, multipliers * [file.num_tokens for file in files])
        return cls(sources=tuple(sources), **splits)

    def table(self) -> list[dict[str, Any]]:
        """Return size, multiplier and ratio of each source in the training split."""
        train = zip(self.sources, self.train.files, self.train.ratios, strict=True)
        return [
            {
                "source": source.name,
                "group": source.group,
                "documents": file.num_documents,
                "tokens": file.num_tokens,
                "multiplier": source.multiplier,
                "ratio": float(ratio),
            }
            for source, file, ratio in train
        ]


class PretrainingData(DrawnBatches):
    """Batches of documents; every token has loss weight 1."""

    def __init__(self, corpus: Corpus, **shape: int) -> None:
        """Prepare to read a corpus; `shape` holds the named arguments of `DrawnBatches`."""
        train, validation = (
            functools.partial(_draw_documents, split, Tokens([file.parts for file in split.files]))
            for split in (corpus.train, corpus.validation)
        )
        super().__init__(train, validation, **shape)
        self.corpus = corpus


def _draw_documents(
    split: Mixture, tokens: "Tokens", generator: np.random.Generator, num_rows: int, row_length: int
) -> tuple[Array, Array]:
    """Draw rows of the documents of a split, see `DrawRows`."""
    offsets = [file.offsets for file in split.files]
    num_tokens = np.array([file.num_tokens for file in split.files])
    num_documents = np.array([file.num_documents for file in split.files])

    def draw_pieces(rows: Array, is_beginning: bool) -> Pieces:
        sources = draw_indices(split.ratios, generator, len(rows))
        if is_beginning:
            starts = generator.integers(num_tokens[sources])
            documents = find_documents(offsets, sources, starts)
        else:
            documents = generator.integers(num_documents[sources])
            starts = look_up(offsets, sources, documents)
        ends = look_up(offsets, sources, documents + 1)
        return rows, tokens.starts[sources] + starts, ends - starts

    rows = draw_rows(draw_pieces, tokens, num_rows=num_rows, row_length=row_length)
    return rows, np.ones(rows.shape, dtype=np.float32)


class Tokens:
    """Token ids of several files, as one long sequence; a place is a position in it.

    Each file has consecutive parts. A piece of a row lies in one part.
    """

    def __init__(self, files: Sequence[Sequence[Array]]) -> None:
        self._parts = [part for parts in files for part in parts]
        ends = np.cumsum([0, *map(len, self._parts)])
        self._part_starts = ends[:-1]
        self.starts = ends[np.cumsum([0, *map(len, files)])[:-1]]
        """Place of the first token of each file, int64 (F,)."""

    def read(self, places: Array, lengths: Array) -> Array:
        """Return the pieces `[place, place + length)`, concatenated, int64."""
        places, lengths = places[lengths > 0], lengths[lengths > 0]
        numbers = np.searchsorted(self._part_starts, places, side="right") - 1
        begins = places - self._part_starts[numbers]
        ends = begins + lengths
        # One slice a piece is three times as fast as computing the place of every token.
        slices = zip(numbers.tolist(), begins.tolist(), ends.tolist(), strict=True)
        pieces = [self._parts[number][begin:end] for number, begin, end in slices]
        return np.concatenate(pieces).astype(np.int64)


def draw_rows(
    draw_pieces: Callable[[Array, bool], Pieces],
    tokens: Tokens,
    *,
    num_rows: int,
    row_length: int,
) -> Array:
    """Draw pieces until every row is full, then read their tokens.

    Args:
        draw_pieces: Takes the numbers of the rows to continue, and whether they begin here. Returns
            pieces with at least one token for each of these rows.
        tokens: The sequence that the pieces refer to.
        num_rows: Rows to draw.
        row_length: Tokens of a row; further tokens are cut off.

    Returns:
        Token ids, int64 (num_rows, row_length).
    """
    drawn: list[Pieces] = []
    filled = np.zeros(num_rows, dtype=np.int64)
    while len(open_rows := np.flatnonzero(filled < row_length)):
        drawn.append(draw_pieces(open_rows, not drawn))
        rows, _, lengths = drawn[-1]
        np.add.at(filled, rows, lengths)
    rows, places, lengths = (np.concatenate(values) for values in zip(*drawn, strict=True))
    order = np.argsort(rows, kind="stable")
    rows, places, lengths = rows[order], places[order], lengths[order]
    begins = np.cumsum(lengths) - lengths
    columns = begins - begins[np.searchsorted(rows, rows)]  # minus the start of their row
    lengths = np.clip(row_length - columns, 0, lengths)
    # Every row is full, so the pieces in order are the rows.
    return tokens.read(places, lengths).reshape(num_rows, row_length)


def draw_indices(ratios: Array, generator: np.random.Generator, count: int) -> Array:
    """Draw indices of `ratios` (float64, sum 1) with those probabilities, int64 (count,)."""
    borders = np.cumsum(ratios)
    # Rounding may leave the last border below 1, hence the minimum.
    drawn = np.searchsorted(borders, generator.random(count), side="right")
    return np.minimum(drawn, len(ratios) - 1)


def look_up(tables: Sequence[Array], which: Array, places: Array) -> Array:
    """Return `tables[which[i]][places[i]]` for every i, int64."""
    found = np.empty(len(which), dtype=np.int64)
    for table in np.unique(which):
        chosen = which == table
        found[chosen] = tables[table][places[chosen]]
    return found


def find_documents(offsets: Sequence[Array], which: Array, tokens: Array) -> Array:
    """Return the number of the document that contains token `tokens[i]` of file `which[i]`."""
    found = np.empty(len(which), dtype=np.int64)
    for file in np.unique(which):
        chosen = which == file
        found[chosen] = np.searchsorted(offsets[file], tokens[chosen], side="right") - 1
    return found
