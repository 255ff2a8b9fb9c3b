"""Batches for fine-tuning: conversations behind their system prompts, with loss weights.

A document is ⮜start-of-text⮞, perhaps a system prompt, a conversation, ⮜end-of-text⮞. Its group is
drawn by the groups' ratios, the conversation in proportion to its tokens (as the published model
did), the system prompt by the group's shares. A row begins at a random token of a document and goes
on with whole documents, each newly drawn, until it holds `context_length + 1` tokens; a
conversation that is longer than the row is cut there. Every step is a pure function of
(seed, step), whatever the batch size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimgpt.data.conversations.conversation import loss_weights
from dimgpt.data.reading.batch import Batch, make_batches
from dimgpt.data.reading.corpus import ConversationCorpus, Mixture
from dimgpt.data.reading.segments import (
    Segments,
    Stores,
    draw_indices,
    fill_rows,
    find_documents,
    look_up,
    read_rows,
)
from dimgpt.text.special_tokens import SpecialTokens

Array = np.ndarray[Any, Any]
# Streams of random numbers under one seed.
_TRAIN, _VALIDATION = 0, 1
# Pieces of a document: start-of-text, system prompt, conversation, end-of-text.
_NUM_PIECES, _CONVERSATION = 4, 2
_BLOCK_TOKENS = 1 << 24


@dataclass(frozen=True, kw_only=True, slots=True)
class _Documents:
    """Drawn documents: store, first token and length of each piece, int64 (N, 4)."""

    stores: Array
    starts: Array
    lengths: Array


class FinetuningData:
    """Batches of conversations, by step."""

    def __init__(
        self,
        corpus: ConversationCorpus,
        *,
        special_tokens: SpecialTokens,
        context_length: int,
        batch_size: int,
        accumulation_steps: int,
        instruction_weight: float,
        seed: int,
    ) -> None:
        """Prepare to read a corpus.

        Args:
            corpus: Conversations and system prompts.
            special_tokens: Ids of roles and document ends.
            context_length: Tokens of a row.
            batch_size: Rows of a batch.
            accumulation_steps: Batches of an optimizer step.
            instruction_weight: Loss weight, in 0..1, of what the model does not say itself; in
                validation it is 0.
            seed: Seed of every draw.
        """
        self.corpus = corpus
        self.special_tokens = special_tokens
        self.row_length = context_length + 1
        self.batch_size = batch_size
        self.accumulation_steps = accumulation_steps
        self.instruction_weight = instruction_weight
        self.seed = seed
        self._train = _ConversationReader(corpus, corpus.train, special_tokens)
        self._validation = _ConversationReader(corpus, corpus.validation, special_tokens)

    def batches(self, step: int) -> list[Batch]:
        """Return the `accumulation_steps` batches of an optimizer step."""
        generator = np.random.default_rng((self.seed, _TRAIN, step))
        num_rows = self.batch_size * self.accumulation_steps
        return self._read(self._train, generator, num_rows, weight=self.instruction_weight)

    def validation_batches(self, num_batches: int) -> list[Batch]:
        """Return batches of the validation split, the same ones each time."""
        generator = np.random.default_rng((self.seed, _VALIDATION))
        return self._read(self._validation, generator, self.batch_size * num_batches, weight=0.0)

    def _read(
        self,
        reader: "_ConversationReader",
        generator: np.random.Generator,
        num_rows: int,
        *,
        weight: float,
    ) -> list[Batch]:
        rows, is_open = reader.draw_rows(generator, num_rows=num_rows, row_length=self.row_length)
        # One token before each row that sets the state in which the row begins: then the rows can
        # be weighed as one long sequence.
        special_tokens = self.special_tokens
        assistant = special_tokens.roles().assistant
        states = np.where(is_open, assistant, special_tokens.end_of_text)
        sequence = np.concatenate([states[:, None], rows], axis=1)
        weights = loss_weights(sequence.ravel(), special_tokens, instruction_weight=weight)
        weights = weights.reshape(sequence.shape)[:, 1:]
        return make_batches(rows, weights, batch_size=self.batch_size)


class _ConversationReader:
    """Draws rows of one split."""

    def __init__(
        self, corpus: ConversationCorpus, split: Mixture, special_tokens: SpecialTokens
    ) -> None:
        self._split = split
        self._num_groups = len(split.files)
        # Stores: conversations of each group, system prompts of each group, start and end.
        edges = np.array([special_tokens.start_of_text, special_tokens.end_of_text])
        conversations = [file.parts for file in split.files]
        prompts = [file.parts if file else () for file in corpus.system_prompts]
        self._stores = Stores([*conversations, *prompts, [edges]])
        self._offsets = [file.offsets for file in split.files]
        self._num_tokens = np.array([file.num_tokens for file in split.files])
        self._prompt_offsets = [
            file.offsets if file else np.zeros(1, dtype=np.int64) for file in corpus.system_prompts
        ]
        self._prompt_ratios = [_prompt_ratios(corpus, group) for group in range(self._num_groups)]
        self._switches = [_find_switches(parts, special_tokens) for parts in conversations]

    def draw_rows(
        self, generator: np.random.Generator, *, num_rows: int, row_length: int
    ) -> tuple[Array, Array]:
        """Draw rows of tokens.

        Returns:
            Token ids, int64 (num_rows, row_length), and whether each row begins inside what the
            model is to say, bool (num_rows,).
        """
        is_open = np.zeros(num_rows, dtype=bool)

        def draw(rows: Array, is_beginning: bool) -> Segments:
            documents = self._draw_documents(generator, len(rows))
            if is_beginning:
                whole, documents = documents, _cut_beginnings(documents, generator)
                is_open[:] = self._is_open(whole, documents)
            return Segments(
                rows=np.repeat(rows, _NUM_PIECES),
                stores=documents.stores.ravel(),
                starts=documents.starts.ravel(),
                lengths=documents.lengths.ravel(),
            )

        planned = fill_rows(draw, num_rows=num_rows, row_length=row_length)
        rows = read_rows(planned, self._stores, num_rows=num_rows, row_length=row_length)
        return rows, is_open

    def _draw_documents(self, generator: np.random.Generator, count: int) -> _Documents:
        groups = draw_indices(self._split.ratios, generator, count)
        # A random token picks its conversation, so that length is probability.
        tokens = generator.integers(self._num_tokens[groups])
        conversations = find_documents(self._offsets, groups, tokens)
        first = look_up(self._offsets, groups, conversations)
        last = look_up(self._offsets, groups, conversations + 1)
        owners, prompt_first, prompt_last = self._draw_prompts(groups, generator)
        edges = np.full(count, 2 * self._num_groups)
        zeros, ones = np.zeros(count, dtype=np.int64), np.ones(count, dtype=np.int64)
        return _Documents(
            stores=np.stack([edges, self._num_groups + owners, groups, edges], axis=1),
            starts=np.stack([zeros, prompt_first, first, ones], axis=1),
            lengths=np.stack([ones, prompt_last - prompt_first, last - first, ones], axis=1),
        )

    def _draw_prompts(
        self, groups: Array, generator: np.random.Generator
    ) -> tuple[Array, Array, Array]:
        """Draw whose system prompt precedes each document, and its bounds; equal bounds: none."""
        choices, places = generator.random(len(groups)), generator.random(len(groups))
        borders = np.cumsum(np.stack(self._prompt_ratios), axis=1)[groups]
        owners = (choices[:, None] >= borders).sum(axis=1)
        has_prompt = owners < self._num_groups
        owners = np.where(has_prompt, owners, 0)
        num_prompts = np.array([len(offsets) - 1 for offsets in self._prompt_offsets])[owners]
        prompts = np.where(has_prompt, (places * num_prompts).astype(np.int64), 0)
        first = look_up(self._prompt_offsets, owners, prompts)
        last = look_up(self._prompt_offsets, owners, prompts + has_prompt)
        return owners, first, last

    def _is_open(self, whole: _Documents, rest: _Documents) -> Array:
        """Tell for each document whether its rest begins inside what the model is to say."""
        groups = whole.stores[:, _CONVERSATION]
        first, place = whole.starts[:, _CONVERSATION], rest.starts[:, _CONVERSATION]
        is_open = np.zeros(len(groups), dtype=bool)
        for group in np.unique(groups):
            chosen = np.flatnonzero(groups == group)
            places, opens = self._switches[group]
            last = np.searchsorted(places, place[chosen]) - 1
            # The last switch before the place counts if it is of this conversation.
            is_open[chosen] = opens[last] & (places[last] >= first[chosen])
        return is_open


def _cut_beginnings(documents: _Documents, generator: np.random.Generator) -> _Documents:
    """Begin each document at a random one of its tokens."""
    ends = np.cumsum(documents.lengths, axis=1)
    offsets = generator.integers(ends[:, -1])
    cuts = np.clip(offsets[:, None] - (ends - documents.lengths), 0, documents.lengths)
    return _Documents(
        stores=documents.stores, starts=documents.starts + cuts, lengths=documents.lengths - cuts
    )


def _find_switches(parts: Sequence[Array], special_tokens: SpecialTokens) -> tuple[Array, Array]:
    """Return the places of all roles that open or close, int64, and which of them open, bool.

    A closed one at place -1 comes first, so that every place has one before it.
    """
    human, _, user, assistant = special_tokens.roles()
    places, opens = [np.array([-1])], [np.array([False])]
    first = 0
    for part in parts:
        for start in range(0, len(part), _BLOCK_TOKENS):
            ids = part[start : start + _BLOCK_TOKENS]
            found = np.flatnonzero(np.isin(ids, (human, user, assistant)))
            places.append(first + start + found)
            opens.append(ids[found] != user)
        first += len(part)
    return np.concatenate(places), np.concatenate(opens)


def _prompt_ratios(corpus: ConversationCorpus, group: int) -> Array:
    """Return the share of each group's system prompts before the conversations of one group."""
    ratios = corpus.groups[group].system_prompt_ratios
    return np.array([ratios.get(owner.name, 0.0) for owner in corpus.groups])
