"""Rows for fine-tuning that hold one conversation each, as lilLM's; the rest is padding.

Conversations are drawn uniformly within their group. One that is not shorter than the context is
left out, and counted. Source: https://github.com/CohleM/lilLM, `sft_train.py`.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dimgpt.config import ConversationSourceConfig
from dimgpt.data.conversation import loss_weights
from dimgpt.data.reading.batch import Array, Batch
from dimgpt.data.reading.pretraining import Mixture, draw_indices
from dimgpt.text.chat_format import ChatIds

log = logging.getLogger(__name__)


class PaddedRows:
    """Draws rows of the conversations of one split."""

    def __init__(
        self,
        chat: ChatIds,
        groups: Sequence[ConversationSourceConfig],
        split: Mixture,
        instruction_weight: float,
        *,
        context_length: int,
        padding: int,
    ) -> None:
        """Find the conversations that are short enough.

        Args:
            chat: The format that the conversations are written in.
            groups: The groups.
            split: Their conversations.
            instruction_weight: As in `FinetuningData`.
            context_length: A conversation must have fewer tokens.
            padding: Id that fills up a row; it never counts in the loss.

        Raises:
            ValueError: A group has none that is short enough.
        """
        self._files, self._ratios, self._chat = split.files, split.ratios, chat
        self._instruction_weight, self._padding = instruction_weight, padding
        room = context_length - len(chat.beginning) - len(chat.end)
        self._kept = [np.flatnonzero(np.diff(file.offsets) < room) for file in split.files]
        for group, kept, file in zip(groups, self._kept, split.files, strict=True):
            left_out = f"{file.num_documents - len(kept):,} of {file.num_documents:,} conversations"
            if not len(kept):
                raise ValueError(
                    f"{group.name} has {left_out} of {context_length} tokens or more, the context: "
                    "none is left for rows of one conversation; set packing to 'concatenate'"
                )
            if len(kept) < file.num_documents:
                log.info("%s: %s do not fit into a row and are left out", group.name, left_out)

    def draw(
        self, generator: np.random.Generator, num_rows: int, row_length: int
    ) -> tuple[Array, Array]:
        """Draw rows and their weights, see `DrawRows`."""
        rows = np.full((num_rows, row_length), self._padding, dtype=np.int64)
        weights = np.zeros(rows.shape, dtype=np.float32)
        places = generator.random(num_rows)
        for number, group in enumerate(draw_indices(self._ratios, generator, num_rows)):
            kept = self._kept[group]
            ids = self._files[group].document(kept[int(places[number] * len(kept))])
            whole = np.concatenate([self._chat.beginning, ids, self._chat.end]).astype(np.int64)
            rows[number, : len(whole)] = whole
            weights[number, : len(whole)] = loss_weights(
                whole, self._chat, instruction_weight=self._instruction_weight
            )
        return rows, weights


def with_equal_weight(batches: list[Batch]) -> list[Batch]:
    """Scale the weights so that each batch has the same sum, and all together what they had.

    The loss of a step is then the mean of the means of its batches, as lilLM computes it.
    """
    sums = [float(batch.weights.sum()) for batch in batches]
    mean = sum(sums) / len(batches)
    return [
        replace(batch, weights=batch.weights * (mean / max(total, 1e-8)))
        for batch, total in zip(batches, sums, strict=True)
    ]
