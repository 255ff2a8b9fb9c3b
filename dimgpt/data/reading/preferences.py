"""Rows that hold pairs of answers to one conversation, for training on preferences.

Pairs are drawn uniformly within their group. Pairs that do not fit into the context are left out
and counted. The rows of a step are as long as the longest of them.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from dimgpt.config import ConversationSourceConfig
from dimgpt.data.conversation import loss_weights, split_pair
from dimgpt.data.reading.batch import Array, Batch, DrawnBatches, DrawRows, make_batches
from dimgpt.data.reading.finetuning import ConversationCorpus
from dimgpt.data.reading.pretraining import Mixture, draw_indices
from dimgpt.text.chat_format import ChatIds

log = logging.getLogger(__name__)


class PairedRows:
    """The pairs of one split that fit into the context."""

    def __init__(
        self,
        groups: Sequence[ConversationSourceConfig],
        split: Mixture,
        *,
        chat: ChatIds,
        context_length: int,
        padding: int,
    ) -> None:
        """Find the pairs; arguments as in `PreferenceData`.

        Raises:
            ValueError: A document is no pair, or no pair of a group fits.
        """
        self._chat, self._padding, self._ratios = chat, padding, split.ratios
        room = context_length + 1 - len(chat.beginning) - len(chat.end)
        self.pairs: list[tuple[Array, Array, Array]] = []
        """Ids of each pair: the conversation, the better answer, and the rejected one."""
        self._starts = [0]
        self.reference: Array | None = None
        """Log-probabilities of the answers under the first model, float32 (N, 2)."""
        for group, file in zip(groups, split.files, strict=True):
            pairs = [split_pair(file.document(n), chat) for n in range(file.num_documents)]
            fitting = [pair for pair in pairs if len(pair[0]) + max(map(len, pair[1:])) <= room]
            left_out = f"{len(pairs) - len(fitting):,} of {len(pairs):,} pairs"
            if not fitting:
                raise ValueError(
                    f"no pair of {group.name} fits into the context of {context_length} tokens: "
                    "use shorter ones, or a model with a longer context"
                )
            if len(fitting) < len(pairs):
                log.warning("%s: %s do not fit into a row and are left out", group.name, left_out)
            self.pairs += fitting
            self._starts.append(len(self.pairs))

    def draw(
        self, generator: np.random.Generator, num_rows: int, row_length: int
    ) -> tuple[Array, ...]:
        """Draw rows, their weights and, if it is set, their reference; see `rows`."""
        places, groups = generator.random(num_rows), draw_indices(self._ratios, generator, num_rows)
        first, sizes = np.array(self._starts)[groups], np.diff(self._starts)[groups]
        return self.rows(first + (places * sizes).astype(np.int64))

    def rows(self, numbers: Array) -> tuple[Array, ...]:
        """Return pairs as ids, int64 (R, 2, T + 1), weights and, if it is set, reference.

        The weights of a pair's two answers add up to 1, so the sum of a step is its number of
        pairs.
        """
        wholes, chat = [], self._chat
        for prompt, *answers in (self.pairs[number] for number in numbers):
            opening = [*chat.beginning, *prompt]
            wholes += [(len(opening), [*opening, *answer, *chat.end]) for answer in answers]
        ids = np.full((len(wholes), max(len(ids) for _, ids in wholes)), self._padding)
        weights = np.zeros(ids.shape, dtype=np.float32)
        for row, (start, whole) in enumerate(wholes):
            ids[row, : len(whole)] = whole
            learned = loss_weights(whole, chat, instruction_weight=0.0)
            weights[row, start : len(whole)] = learned[start:]
        paired = (len(numbers), 2, -1)
        ids, weights = ids.reshape(paired), weights.reshape(paired)
        weights /= weights.sum(axis=(1, 2), keepdims=True)
        return (ids, weights, *(() if self.reference is None else (self.reference[numbers],)))

    def batches(self, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        """Yield the pairs in their order, without their reference: all, or the first `limit`."""
        numbers = np.arange(len(self.pairs))[:limit]
        for first in range(0, len(numbers), batch_size):
            ids, weights, *_ = self.rows(numbers[first : first + batch_size])
            yield from make_batches(ids, weights, batch_size=batch_size)


class PreferenceData(DrawnBatches):
    """Batches of pairs of answers, the better one first."""

    def __init__(
        self, corpus: ConversationCorpus, *, chat: ChatIds, padding: int, **shape: int
    ) -> None:
        """Prepare to read a corpus; `shape` holds the named arguments of `DrawnBatches`.

        Args:
            corpus: Its pairs.
            chat: The chat format.
            padding: Id that fills up a row; it never counts in the loss.
            shape: See above.
        """
        self.corpus = corpus
        self.train, self.validation = (
            PairedRows(
                groups, split, chat=chat, context_length=shape["context_length"], padding=padding
            )
            for groups, split in (
                (corpus.sources, corpus.train),
                (corpus.validated, corpus.validation),
            )
        )
        super().__init__(self.train.draw, self.validation.draw, **shape)

    def _draw(
        self, draw: DrawRows, generator: np.random.Generator, num_batches: int
    ) -> list[Batch]:
        size = self._batch_size
        rows, weights, *more = draw(generator, size * num_batches, self._row_length)
        batches = make_batches(rows, weights, batch_size=size)
        parts = torch.from_numpy(more[0]).split(size) if more else [None] * len(batches)
        return [replace(one, reference=part) for one, part in zip(batches, parts, strict=True)]
