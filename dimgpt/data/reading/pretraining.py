"""Batches for pretraining: rows of whole documents from a mixture of sources.

A row begins at a random token of a random source and runs to the end of that document. Then whole
random documents follow, each of a newly drawn source, until the row holds `context_length + 1`
tokens. Attention and positions cross the borders between documents, as in the published model.

Every step is a pure function of (seed, step): nothing is remembered between steps, and the rows do
not depend on how they are divided into batches. Rows are drawn and read without a Python loop over
rows or tokens. `finetuning.py` draws its rows with the same functions.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dimgpt.data.reading.batch import Batch, make_batches
from dimgpt.data.reading.corpus import Corpus, Mixture

Array = np.ndarray[Any, Any]
Pieces = tuple[Array, Array, Array]
"""Pieces of rows, in their order: row, place of the first token, tokens (0 or more), int64 (P,)."""
DrawRows = Callable[[np.random.Generator, int, int], tuple[Array, Array]]
"""Draws so many rows of so many tokens: their ids, int64, and loss weights, float32, (R, T)."""
# Streams of random numbers under one seed.
_TRAIN, _VALIDATION = 0, 1


class DrawnBatches:
    """The batches of any step, and those of the validation split."""

    def __init__(
        self,
        draw_train: DrawRows,
        draw_validation: DrawRows,
        *,
        context_length: int,
        batch_size: int,
        accumulation_steps: int,
        seed: int,
    ) -> None:
        """Take what draws the rows of either split.

        Args:
            draw_train: Draws the rows to train on.
            draw_validation: Draws held-out rows.
            context_length: Tokens of a row, without the last target.
            batch_size: Rows of a batch.
            accumulation_steps: Batches of an optimizer step.
            seed: Seed of every draw.
        """
        self._draw_train, self._draw_validation = draw_train, draw_validation
        self._row_length = context_length + 1
        self._batch_size, self._accumulation_steps = batch_size, accumulation_steps
        self._seed = seed

    def batches(self, step: int) -> list[Batch]:
        """Return the `accumulation_steps` batches of an optimizer step."""
        generator = np.random.default_rng((self._seed, _TRAIN, step))
        return self._draw(self._draw_train, generator, self._accumulation_steps)

    def validation_batches(self, num_batches: int) -> list[Batch]:
        """Return batches of the validation split, the same ones each time."""
        generator = np.random.default_rng((self._seed, _VALIDATION))
        return self._draw(self._draw_validation, generator, num_batches)

    def _draw(
        self, draw: DrawRows, generator: np.random.Generator, num_batches: int
    ) -> list[Batch]:
        rows, weights = draw(generator, self._batch_size * num_batches, self._row_length)
        return make_batches(rows, weights, batch_size=self._batch_size)


class PretrainingData(DrawnBatches):
    """Batches of documents."""

    def __init__(self, corpus: Corpus, **shape: int) -> None:
        """Prepare to read a corpus; `shape` holds the named arguments of `DrawnBatches`."""
        train, validation = _WindowReader(corpus.train), _WindowReader(corpus.validation)
        super().__init__(train.draw, validation.draw, **shape)
        self.corpus = corpus


class _WindowReader:
    """Draws rows of documents, which all have the loss weight 1."""

    def __init__(self, mixture: Mixture) -> None:
        self._ratios = mixture.ratios
        self._offsets = [file.offsets for file in mixture.files]
        self._num_tokens = np.array([file.num_tokens for file in mixture.files])
        self._num_documents = np.array([file.num_documents for file in mixture.files])
        self._tokens = Tokens([file.parts for file in mixture.files])

    def draw(
        self, generator: np.random.Generator, num_rows: int, row_length: int
    ) -> tuple[Array, Array]:
        offsets = self._offsets

        def draw_pieces(rows: Array, is_beginning: bool) -> Pieces:
            sources = draw_indices(self._ratios, generator, len(rows))
            if is_beginning:
                starts = generator.integers(self._num_tokens[sources])
                ends = look_up(offsets, sources, find_documents(offsets, sources, starts) + 1)
            else:
                documents = generator.integers(self._num_documents[sources])
                starts = look_up(offsets, sources, documents)
                ends = look_up(offsets, sources, documents + 1)
            return rows, self._tokens.starts[sources] + starts, ends - starts

        rows = draw_rows(draw_pieces, self._tokens, num_rows=num_rows, row_length=row_length)
        return rows, np.ones(rows.shape, dtype=np.float32)


class Tokens:
    """Token ids of several files, as one long sequence: a place is a position in it.

    The ids of a file come in parts that follow each other. A piece of a row lies in one part.
    """

    def __init__(self, files: Sequence[Sequence[Array]]) -> None:
        """Take the parts of each file; a file may have none."""
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
    """Draw pieces for every row that is not full yet, until all are; then read them.

    Args:
        draw_pieces: Takes the numbers of the rows to continue, and whether this is their beginning.
            Returns pieces that hold at least one token for each of these rows.
        tokens: Where the pieces lie.
        num_rows: Rows to draw.
        row_length: Tokens of a row; what is drawn beyond is cut off.

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
    columns = begins - begins[np.searchsorted(rows, rows)]  # minus the begin of their row
    lengths = np.clip(row_length - columns, 0, lengths)
    # Every row is full, so the pieces in their order are the rows.
    return tokens.read(places, lengths).reshape(num_rows, row_length)


def draw_indices(ratios: Array, generator: np.random.Generator, count: int) -> Array:
    """Draw indices of `ratios` (float64, sum 1) with those probabilities, int64 (count,)."""
    borders = np.cumsum(ratios)
    # Rounding may leave the last border below 1: the clip keeps such a draw inside.
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
    """Return the number of the document that holds token `tokens[i]` of file `which[i]`."""
    found = np.empty(len(which), dtype=np.int64)
    for file in np.unique(which):
        chosen = which == file
        found[chosen] = np.searchsorted(offsets[file], tokens[chosen], side="right") - 1
    return found
