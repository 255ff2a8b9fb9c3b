"""Draws conversations with their system prompts, and rows of them one after the other.

A document is the beginning of the chat format, perhaps a system prompt, a conversation, and the end
of the format. `packed.py` puts documents into rows in other ways.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dimgpt.config import ConversationSourceConfig
from dimgpt.data.conversation import loss_weights
from dimgpt.data.reading.batch import Array
from dimgpt.data.reading.pretraining import (
    Mixture,
    Pieces,
    Tokens,
    draw_indices,
    draw_rows,
    find_documents,
    look_up,
)
from dimgpt.data.token_file import TokenFile
from dimgpt.text.chat_format import ChatIds

# Pieces of a document: beginning, system prompt, conversation, end.
_NUM_PIECES, _CONVERSATION = 4, 2


class ConversationRows:
    """Draws documents of the conversations of one split; subclasses make rows of them.

    Args:
        prompts: Name of every group of the corpus -> its system prompts, if it has any.
        instruction_weight: Loss weight, in 0..1, of tokens that the model does not learn to say.
        is_later_uniform: As in `FinetuningData`.
        padding: Id that fills up a row; it never counts in the loss.
        context_length: Tokens of a row, less one.
        fixed_prompts: Group -> ids of the only system prompt that it uses.
    """

    def __init__(
        self,
        groups: Sequence[ConversationSourceConfig],
        split: Mixture,
        *,
        prompts: Mapping[str, TokenFile | None],
        chat: ChatIds,
        instruction_weight: float,
        is_later_uniform: bool,
        padding: int,
        context_length: int,
        fixed_prompts: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._chat, self._instruction_weight = chat, instruction_weight
        self._is_later_uniform = is_later_uniform
        self._padding, self._ratios = padding, split.ratios
        self._num_tokens = np.array([file.num_tokens for file in split.files])
        self._num_conversations = np.array([file.num_documents for file in split.files])
        self._offsets = [file.offsets for file in split.files]
        # No group has ":" in its name.
        fixed = {f"{name}:": np.array(ids) for name, ids in (fixed_prompts or {}).items()}
        self._prompt_offsets = [
            *(file.offsets if file else np.zeros(1, np.int64) for file in prompts.values()),
            *(np.array([0, len(ids)]) for ids in fixed.values()),
        ]
        # Row: group of the conversation. Column: group of the system prompt, or a fixed prompt.
        columns = [*prompts, *fixed]
        ratios = [
            {key: 1.0} if (key := f"{group.name}:") in fixed else group.system_prompt_ratios
            for group in groups
        ]
        shares = [[row.get(column, 0.0) for column in columns] for row in ratios]
        self._prompt_borders = np.cumsum(np.array(shares), axis=1)
        parts = [file.parts if file else () for file in (*split.files, *prompts.values())]
        # Beginning and end of a conversation, and a stop token, after which nothing is learned.
        self._num_begin, self._num_end = len(chat.beginning), len(chat.end)
        edges = np.array([*chat.beginning, *chat.end, chat.stops[-1]])
        self._tokens = Tokens([*parts, *([ids] for ids in fixed.values()), [edges]])
        self._silence = self._tokens.starts[-1] + len(edges) - 1

    def draw_documents(
        self, generator: np.random.Generator, count: int, *, by_length: bool
    ) -> tuple[Array, Array]:
        """Draw documents; return the first place and the length of each piece, int64 (N, 4)."""
        groups, conversations = self._choose(generator, count, by_length=by_length)
        first = look_up(self._offsets, groups, conversations)
        last = look_up(self._offsets, groups, conversations + 1)
        owners, prompt_first, prompt_last = self._draw_prompts(groups, generator)
        starts, num_groups = self._tokens.starts, len(self._offsets)
        edges, ones = np.full(count, starts[-1]), np.ones(count, dtype=np.int64)
        prompts = starts[num_groups + owners] + prompt_first
        places = np.stack([edges, prompts, starts[groups] + first, edges + self._num_begin], axis=1)
        lengths = np.stack(
            [
                ones * self._num_begin,
                prompt_last - prompt_first,
                last - first,
                ones * self._num_end,
            ],
            axis=1,
        )
        return places, lengths

    def _choose(
        self, generator: np.random.Generator, count: int, *, by_length: bool
    ) -> tuple[Array, Array]:
        """Draw groups, and the number of a conversation in each, both int64 (N,)."""
        groups = draw_indices(self._ratios, generator, count)
        if not by_length:
            return groups, generator.integers(self._num_conversations[groups])
        tokens = generator.integers(self._num_tokens[groups])  # a random token's conversation
        return groups, find_documents(self._offsets, groups, tokens)

    def _draw_prompts(
        self, groups: Array, generator: np.random.Generator
    ) -> tuple[Array, Array, Array]:
        """Draw a system prompt per document: its group and bounds; equal bounds mean none."""
        choices, positions = generator.random(len(groups)), generator.random(len(groups))
        owners = (choices[:, None] >= self._prompt_borders[groups]).sum(axis=1)
        has_prompt = owners < len(self._prompt_offsets)
        owners = np.where(has_prompt, owners, 0)
        num_prompts = np.array([len(offsets) - 1 for offsets in self._prompt_offsets])[owners]
        prompts = np.where(has_prompt, (positions * num_prompts).astype(np.int64), 0)
        first = look_up(self._prompt_offsets, owners, prompts)
        last = look_up(self._prompt_offsets, owners, prompts + has_prompt)
        return owners, first, last


class ConcatenatedRows(ConversationRows):
    """Rows of one document after the other, as for the published model.

    The first document of a row begins at a random token. Attention and positions cross the borders
    between documents.
    """

    def draw(
        self, generator: np.random.Generator, num_rows: int, row_length: int
    ) -> tuple[Array, Array]:
        """Draw rows and their weights, see `DrawRows`."""
        is_open = np.zeros(num_rows, dtype=bool)

        def draw_pieces(rows: Array, is_beginning: bool) -> Pieces:
            by_length = is_beginning or not self._is_later_uniform
            places, lengths = self.draw_documents(generator, len(rows), by_length=by_length)
            if is_beginning:
                cuts = _draw_cuts(lengths, generator)
                is_open[:] = self._is_open(places[:, _CONVERSATION], cuts[:, _CONVERSATION])
                places, lengths = places + cuts, lengths - cuts
            return np.repeat(rows, _NUM_PIECES), places.ravel(), lengths.ravel()

        rows = draw_rows(draw_pieces, self._tokens, num_rows=num_rows, row_length=row_length)
        # Tokens before each row set whether it begins inside a learned answer, so that one call
        # weighs all rows. A row that begins in the middle of an opener counts as outside.
        opener = np.array(self._chat.learned_openers[-1])
        silence = np.full_like(opener, self._chat.stops[-1])
        states = np.where(is_open[:, None], opener, silence)
        sequence = np.concatenate([states, rows], axis=1)
        weights = loss_weights(
            sequence.ravel(), self._chat, instruction_weight=self._instruction_weight
        )
        return rows, weights.reshape(sequence.shape)[:, len(opener) :]

    def _is_open(self, places: Array, lengths: Array) -> Array:
        """Return whether the model would learn the token after `lengths` tokens, bool (N,)."""
        ends, ones = np.full(len(places), self._silence), np.ones_like(lengths)
        # The stop before a conversation ends the previous one. The weight of the stop after the
        # last token tells whether the model would learn that position.
        pieces = np.stack([ends, places, ends], axis=1), np.stack([ones, lengths, ones], axis=1)
        sequence = self._tokens.read(pieces[0].ravel(), pieces[1].ravel())
        weights = loss_weights(sequence, self._chat, instruction_weight=0.0)
        return weights[np.cumsum(lengths + 2) - 1] == 1


def _draw_cuts(lengths: Array, generator: np.random.Generator) -> Array:
    """Draw how many tokens each piece, (N, 4), loses if its document begins at a random token."""
    ends = np.cumsum(lengths, axis=1)
    offsets = generator.integers(ends[:, -1])
    return np.clip(offsets[:, None] - (ends - lengths), 0, lengths)
