"""Rows for fine-tuning with complete conversations and padding: as many as fit, or one a row.

In both kinds the first token of a conversation has no loss, because nothing precedes it.
"""

import bisect
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dimgpt.config import ConversationSourceConfig
from dimgpt.data.conversation import loss_weights
from dimgpt.data.reading.batch import Array, Batch
from dimgpt.data.reading.conversation_rows import ConversationRows
from dimgpt.data.reading.pretraining import Mixture, draw_indices, look_up

log = logging.getLogger(__name__)


class PackedRows(ConversationRows):
    """Rows of as many documents as fit; attention stays inside each, and positions restart.

    The documents of a step are drawn one after the other. The longest beginning of that list that
    best fit can place is packed, so no document is skipped because of its length. A document that
    is longer than a row is cut at the row's end.
    """

    def draw(
        self, generator: np.random.Generator, num_rows: int, row_length: int
    ) -> tuple[Array, ...]:
        """Draw rows, their weights and their documents, see `DrawRows`."""
        rows, places, lengths = self.arrange(generator, num_rows, row_length)
        order = np.argsort(rows, kind="stable")
        rows, places, lengths = rows[order], places[order], lengths[order]
        # A stop before each document ends an answer that was cut off in the previous one.
        places = np.insert(places, 0, self._silence, axis=1)
        ids = self._tokens.read(places.ravel(), np.insert(lengths, 0, 1, axis=1).ravel())
        learned = loss_weights(ids, self._chat, instruction_weight=self._instruction_weight)
        wholes = lengths.sum(axis=1)
        stops = np.cumsum(wholes + 1) - wholes - 1
        learned[stops + 1] = 0

        counts = np.bincount(rows, minlength=num_rows)
        # A power of two, because a model is compiled for each width; the last document is padding.
        documents = np.zeros((num_rows, 1 << int(counts.max()).bit_length()), dtype=np.int64)
        documents[rows, np.arange(len(rows)) - np.searchsorted(rows, rows)] = wholes
        filled = documents.sum(axis=1)
        documents[np.arange(num_rows), counts] = row_length - filled
        begins = np.cumsum(documents, axis=1) - documents
        is_filled = np.arange(row_length) < filled[:, None]
        table = np.full((num_rows, row_length), self._padding, dtype=np.int64)
        weights = np.zeros(table.shape, dtype=np.float32)
        table[is_filled], weights[is_filled] = np.delete(ids, stops), np.delete(learned, stops)
        return table, weights, np.clip(row_length - 1 - begins, 0, documents)

    def arrange(
        self, generator: np.random.Generator, num_rows: int, row_length: int
    ) -> tuple[Array, Array, Array]:
        """Draw documents; return the row of each, (N,), and its pieces as `draw_documents` does."""
        drawn, num_tokens = [], 0
        while num_tokens < num_rows * row_length:
            by_length = not self._is_later_uniform
            places, lengths = self.draw_documents(generator, num_rows, by_length=by_length)
            begins = np.cumsum(lengths, axis=1) - lengths
            lengths = np.clip(row_length - begins, 0, lengths)
            drawn.append((places, lengths))
            num_tokens += int(lengths.sum())
        places, lengths = (np.concatenate(values) for values in zip(*drawn, strict=True))
        wholes = lengths.sum(axis=1).tolist()

        def is_too_much(count: int) -> bool:
            return pack(wholes[:count], num_rows=num_rows, row_length=row_length) is None

        count = bisect.bisect_left(range(1, len(wholes) + 1), True, key=is_too_much)
        rows = pack(wholes[:count], num_rows=num_rows, row_length=row_length)
        return np.array(rows), places[:count], lengths[:count]


class PaddedRows(PackedRows):
    """Rows of one conversation each, as lilLM's, without system prompts.

    Conversations are drawn uniformly within their group. Those that do not fit into the context are
    left out and counted. Source: https://github.com/CohleM/lilLM, `sft_train.py`.
    """

    def __init__(
        self,
        groups: Sequence[ConversationSourceConfig],
        split: Mixture,
        *,
        context_length: int,
        **options: Any,
    ) -> None:
        """Find the conversations that are short enough.

        Raises:
            ValueError: A group has none.
        """
        super().__init__(groups, split, context_length=context_length, **options)
        room = context_length - self._num_begin - self._num_end
        self._kept = [np.flatnonzero(np.diff(offsets) < room) for offsets in self._offsets]
        for group, kept, file in zip(groups, self._kept, split.files, strict=True):
            left_out = f"{file.num_documents - len(kept):,} of {file.num_documents:,} conversations"
            if not len(kept):
                raise ValueError(
                    f"no conversation of {group.name} is shorter than the context of "
                    f"{context_length} tokens: set packing to 'concatenate'"
                )
            if len(kept) < file.num_documents:
                log.warning("%s: %s do not fit into a row and are left out", group.name, left_out)

    def draw(
        self, generator: np.random.Generator, num_rows: int, row_length: int
    ) -> tuple[Array, ...]:
        """Draw rows and their weights; the causal mask hides the padding after a conversation."""
        return super().draw(generator, num_rows, row_length)[:2]

    def arrange(
        self, generator: np.random.Generator, num_rows: int, row_length: int
    ) -> tuple[Array, Array, Array]:
        """Draw a document for each row."""
        return np.arange(num_rows), *self.draw_documents(generator, num_rows, by_length=False)

    def _choose(
        self, generator: np.random.Generator, count: int, *, by_length: bool
    ) -> tuple[Array, Array]:
        shares, groups = generator.random(count), draw_indices(self._ratios, generator, count)
        num_kept = np.array([len(kept) for kept in self._kept])
        return groups, look_up(self._kept, groups, (shares * num_kept[groups]).astype(np.int64))


def pack(lengths: Sequence[int], *, num_rows: int, row_length: int) -> list[int] | None:
    """Put documents into rows, the longest first, each into the row with the least sufficient room.

    Best fit decreasing: Johnson 1973, https://dspace.mit.edu/handle/1721.1/57819. For language
    models: Ding et al. 2024, https://arxiv.org/abs/2404.10830.

    Args:
        lengths: Tokens of each document, at most `row_length`.
        num_rows: Number of rows.
        row_length: Tokens of a row.

    Returns:
        The row of each document; `None` if they do not fit.
    """
    rows = [0] * len(lengths)
    free = [(row_length, row) for row in range(num_rows)]  # sorted
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        best = bisect.bisect_left(free, (lengths[number], 0))
        if best == len(free):
            return None
        room, rows[number] = free.pop(best)
        bisect.insort(free, (room - lengths[number], rows[number]))
    return rows


def with_equal_weight(batches: list[Batch]) -> list[Batch]:
    """Scale the weights so that each batch has the same sum, and the total stays the same.

    The loss of a step is then the mean of the means of its batches, as lilLM computes it.
    """
    sums = [float(batch.weights.sum()) for batch in batches]
    mean = sum(sums) / len(batches)
    return [
        replace(batch, weights=batch.weights * (mean / max(total, 1e-8)))
        for batch, total in zip(batches, sums, strict=True)
    ]
