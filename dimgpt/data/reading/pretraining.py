"""Batches for pretraining: windows on a mixture of documents.

A row begins at a random token of a random source and runs to the end of that document; then whole
random documents follow, each of a newly drawn source and from its start, until the row holds
`context_length + 1` tokens. Attention and positions cross the borders between documents, as in the
published model. Every step is a pure function of (seed, step): nothing is remembered between
steps, and the rows do not depend on how they are divided into batches.
"""

from typing import Any

import numpy as np

from dimgpt.data.reading.batch import Batch, make_batches
from dimgpt.data.reading.corpus import Corpus, Mixture
from dimgpt.data.reading.segments import (
    Segments,
    Stores,
    draw_indices,
    fill_rows,
    find_documents,
    look_up,
    read_rows,
)

# Streams of random numbers under one seed.
_TRAIN, _VALIDATION = 0, 1


class PretrainingData:
    """Batches of a corpus, by step."""

    def __init__(
        self,
        corpus: Corpus,
        *,
        context_length: int,
        batch_size: int,
        accumulation_steps: int,
        seed: int,
    ) -> None:
        """Prepare to read a corpus; lengths in tokens, `batch_size` in rows."""
        self.corpus = corpus
        self.row_length = context_length + 1
        self.batch_size = batch_size
        self.accumulation_steps = accumulation_steps
        self.seed = seed
        self._train = _WindowReader(corpus.train)
        self._validation = _WindowReader(corpus.validation)

    def batches(self, step: int) -> list[Batch]:
        """Return the `accumulation_steps` batches of an optimizer step."""
        generator = np.random.default_rng((self.seed, _TRAIN, step))
        num_rows = self.batch_size * self.accumulation_steps
        return self._read(self._train, generator, num_rows)

    def validation_batches(self, num_batches: int) -> list[Batch]:
        """Return batches of the validation split, the same ones each time."""
        generator = np.random.default_rng((self.seed, _VALIDATION))
        return self._read(self._validation, generator, self.batch_size * num_batches)

    def _read(
        self, reader: "_WindowReader", generator: np.random.Generator, num_rows: int
    ) -> list[Batch]:
        rows = reader.draw_rows(generator, num_rows=num_rows, row_length=self.row_length)
        weights = np.ones(rows.shape, dtype=np.float32)
        return make_batches(rows, weights, batch_size=self.batch_size)


class _WindowReader:
    """Draws rows of one split."""

    def __init__(self, mixture: Mixture) -> None:
        self._ratios = mixture.ratios
        self._offsets = [file.offsets for file in mixture.files]
        self._num_tokens = np.array([file.num_tokens for file in mixture.files])
        self._num_documents = np.array([file.num_documents for file in mixture.files])
        self._stores = Stores([file.parts for file in mixture.files])

    def draw_rows(
        self, generator: np.random.Generator, *, num_rows: int, row_length: int
    ) -> np.ndarray[Any, Any]:
        """Draw rows of tokens, int64 (num_rows, row_length)."""
        offsets = self._offsets

        def draw(rows: np.ndarray[Any, Any], is_beginning: bool) -> Segments:
            sources = draw_indices(self._ratios, generator, len(rows))
            if is_beginning:
                starts = generator.integers(self._num_tokens[sources])
                ends = look_up(offsets, sources, find_documents(offsets, sources, starts) + 1)
            else:
                documents = generator.integers(self._num_documents[sources])
                starts = look_up(offsets, sources, documents)
                ends = look_up(offsets, sources, documents + 1)
            return Segments(rows=rows, stores=sources, starts=starts, lengths=ends - starts)

        planned = fill_rows(draw, num_rows=num_rows, row_length=row_length)
        return read_rows(planned, self._stores, num_rows=num_rows, row_length=row_length)
