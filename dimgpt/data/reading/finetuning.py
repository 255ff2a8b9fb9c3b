"""Batches for fine-tuning: conversations behind their system prompts, with loss weights.

A document is perhaps a system prompt, and a conversation, between what the chat format puts around
both. Its group is drawn by the groups' ratios, the conversation in proportion to its tokens, the
system prompt by the group's shares. A row begins at a random token of a document and continues with
whole documents, each newly drawn, until it holds `context_length + 1` tokens; a conversation that
is longer than the row is cut there. The published model drew the conversations after a row's first
uniformly, and validated behind one fixed system prompt: see `later_conversations` and
`validation_system_prompt`.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimgpt.config import ConversationSourceConfig, PreferenceSourceConfig
from dimgpt.data.conversation import loss_weights
from dimgpt.data.reading.batch import Array, Batch, DrawnBatches, DrawRows
from dimgpt.data.reading.padded import PaddedRows, with_equal_weight
from dimgpt.data.reading.pretraining import (
    Mixture,
    Pieces,
    Tokens,
    draw_indices,
    draw_rows,
    find_documents,
    look_up,
)
from dimgpt.data.token_file import SYSTEM_PROMPTS, TokenFile
from dimgpt.text.chat_format import ChatIds

# Pieces of a document: what begins it, system prompt, conversation, what ends it.
_NUM_PIECES, _CONVERSATION = 4, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationCorpus:
    """Conversations of several groups, drawn by the groups' ratios, and their system prompts."""

    sources: tuple[ConversationSourceConfig, ...]
    """The groups."""
    train: Mixture
    validated: tuple[ConversationSourceConfig, ...]
    """The groups that hold conversations out for validation."""
    validation: Mixture
    system_prompts: tuple[TokenFile | None, ...]
    """System prompts of each group; `None` for a group that has none of its own."""

    @classmethod
    def open(
        cls, folder: Path, groups: Sequence[ConversationSourceConfig], tokenizer_fingerprint: str
    ) -> "ConversationCorpus":
        """Open the prepared folder of every group, `folder/<group name>`, as `Corpus.open` does.

        The ratios of the groups apply now, scaled to a sum of 1.

        Raises:
            ValueError: A group draws system prompts that do not exist; or as `Corpus.open`.
        """
        if not groups:
            raise ValueError("conversations is empty: name one in DataConfig.conversations")
        _check_system_prompts(groups)
        open_file = functools.partial(TokenFile, fingerprint=tokenizer_fingerprint)
        validated = tuple(group for group in groups if group.validation_ratio != 0)
        splits = {
            split: Mixture.of(
                [open_file(folder / group.name, split) for group in chosen],
                [group.ratio for group in chosen],
            )
            for split, chosen in (("train", groups), ("validation", validated))
        }
        prompts = tuple(
            open_file(folder / group.name, SYSTEM_PROMPTS) if group.system_prompts_path else None
            for group in groups
        )
        return cls(sources=tuple(groups), validated=validated, system_prompts=prompts, **splits)

    def table(self) -> list[dict[str, Any]]:
        """Return size and share of the draws of each group, in the training split."""
        train = zip(self.sources, self.train.files, self.train.ratios, strict=True)
        are_pairs = isinstance(self.sources[0], PreferenceSourceConfig)
        return [
            {
                "source": group.name,
                "pairs" if are_pairs else "conversations": file.num_documents,
                "tokens": file.num_tokens,
                "ratio": float(ratio),
            }
            for group, file, ratio in train
        ]


class FinetuningData(DrawnBatches):
    """Batches of conversations."""

    def __init__(
        self,
        corpus: ConversationCorpus,
        *,
        chat: ChatIds,
        instruction_weight: float,
        is_later_uniform: bool = False,
        validation_prompts: Mapping[str, Sequence[int]] | None = None,
        padding: int | None = None,
        **shape: int,
    ) -> None:
        """Prepare to read a corpus; `shape` holds the named arguments of `DrawnBatches`.

        Args:
            corpus: Its conversations.
            chat: How they are written.
            instruction_weight: Loss weight, in 0..1, of what the model does not say itself; in
                validation it is 0.
            is_later_uniform: The conversations after a row's first are drawn uniformly in their
                group, else by length.
            validation_prompts: Group -> ids of its `validation_system_prompt`, if it has one.
            padding: An id: each row holds one conversation and is filled up with it, and system
                prompts are not drawn. `None` fills rows with further conversations.
            shape: See above.
        """
        self.corpus, self._is_padded = corpus, padding is not None
        if padding is None:
            make: Any = functools.partial(
                _ConversationReader, corpus, chat, is_later_uniform=is_later_uniform
            )
            fixed = {"fixed_prompts": validation_prompts}
        else:
            length, fixed = shape["context_length"], {}
            make = functools.partial(PaddedRows, chat, context_length=length, padding=padding)
        train = make(corpus.sources, corpus.train, instruction_weight)
        validation = make(corpus.validated, corpus.validation, 0.0, **fixed)
        super().__init__(train.draw, validation.draw, **shape)

    def _draw(
        self, draw: DrawRows, generator: np.random.Generator, num_batches: int
    ) -> list[Batch]:
        batches = super()._draw(draw, generator, num_batches)
        return with_equal_weight(batches) if self._is_padded else batches


class _ConversationReader:
    """Draws rows of the conversations of one split."""

    def __init__(
        self,
        corpus: ConversationCorpus,
        chat: ChatIds,
        groups: Sequence[ConversationSourceConfig],
        split: Mixture,
        instruction_weight: float,
        *,
        is_later_uniform: bool,
        fixed_prompts: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._chat, self._instruction_weight = chat, instruction_weight
        self._is_later_uniform = is_later_uniform
        self._ratios = split.ratios
        self._num_tokens = np.array([file.num_tokens for file in split.files])
        self._num_conversations = np.array([file.num_documents for file in split.files])
        self._offsets = [file.offsets for file in split.files]
        # No group has ":" in its name.
        fixed = {f"{name}:": np.array(ids) for name, ids in (fixed_prompts or {}).items()}
        self._prompt_offsets = [
            *(file.offsets if file else np.zeros(1, np.int64) for file in corpus.system_prompts),
            *(np.array([0, len(ids)]) for ids in fixed.values()),
        ]
        # Row: the group of the conversation. Column: the group that the system prompt is of, or
        # that it is the fixed one of.
        columns = [*(owner.name for owner in corpus.sources), *fixed]
        ratios = [
            {key: 1.0} if (key := f"{group.name}:") in fixed else group.system_prompt_ratios
            for group in groups
        ]
        shares = [[row.get(column, 0.0) for column in columns] for row in ratios]
        self._prompt_borders = np.cumsum(np.array(shares), axis=1)
        conversations = [file.parts for file in split.files]
        prompts = [file.parts if file else () for file in corpus.system_prompts]
        # What begins and ends a conversation, and a token after which the model is silent.
        self._num_begin, self._num_end = len(chat.beginning), len(chat.end)
        edges = np.array([*chat.beginning, *chat.end, chat.stops[-1]])
        self._tokens = Tokens(
            [*conversations, *prompts, *([ids] for ids in fixed.values()), [edges]]
        )

    def draw(
        self, generator: np.random.Generator, num_rows: int, row_length: int
    ) -> tuple[Array, Array]:
        is_open = np.zeros(num_rows, dtype=bool)

        def draw_pieces(rows: Array, is_beginning: bool) -> Pieces:
            by_length = is_beginning or not self._is_later_uniform
            places, lengths = self._draw_documents(generator, len(rows), by_length=by_length)
            if is_beginning:
                cuts = _draw_cuts(lengths, generator)
                is_open[:] = self._is_open(places[:, _CONVERSATION], cuts[:, _CONVERSATION])
                places, lengths = places + cuts, lengths - cuts
            return np.repeat(rows, _NUM_PIECES), places.ravel(), lengths.ravel()

        rows = draw_rows(draw_pieces, self._tokens, num_rows=num_rows, row_length=row_length)
        # Tokens before each row set the state in which the row begins. So the rows can be weighed
        # as one long sequence. The rest of an opener that a row begins inside opens nothing.
        opener = np.array(self._chat.learned_openers[-1])
        silence = np.full_like(opener, self._chat.stops[-1])
        states = np.where(is_open[:, None], opener, silence)
        sequence = np.concatenate([states, rows], axis=1)
        weights = loss_weights(
            sequence.ravel(), self._chat, instruction_weight=self._instruction_weight
        )
        return rows, weights.reshape(sequence.shape)[:, len(opener) :]

    def _draw_documents(
        self, generator: np.random.Generator, count: int, *, by_length: bool
    ) -> tuple[Array, Array]:
        """Draw documents: place of the first token, and tokens, of each piece, int64 (N, 4)."""
        groups = draw_indices(self._ratios, generator, count)
        if by_length:  # a random token picks its conversation
            tokens = generator.integers(self._num_tokens[groups])
            conversations = find_documents(self._offsets, groups, tokens)
        else:
            conversations = generator.integers(self._num_conversations[groups])
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

    def _draw_prompts(
        self, groups: Array, generator: np.random.Generator
    ) -> tuple[Array, Array, Array]:
        """Draw the group and the bounds of each document's system prompt; equal bounds: none."""
        choices, positions = generator.random(len(groups)), generator.random(len(groups))
        owners = (choices[:, None] >= self._prompt_borders[groups]).sum(axis=1)
        has_prompt = owners < len(self._prompt_offsets)
        owners = np.where(has_prompt, owners, 0)
        num_prompts = np.array([len(offsets) - 1 for offsets in self._prompt_offsets])[owners]
        prompts = np.where(has_prompt, (positions * num_prompts).astype(np.int64), 0)
        first = look_up(self._prompt_offsets, owners, prompts)
        last = look_up(self._prompt_offsets, owners, prompts + has_prompt)
        return owners, first, last

    def _is_open(self, places: Array, lengths: Array) -> Array:
        """Tell whether the model speaks after so many tokens of conversations, bool (N,)."""
        silence = self._tokens.starts[-1] + self._num_begin + self._num_end
        ends, ones = np.full(len(places), silence), np.ones_like(lengths)
        # The stop before a conversation closes what was open. The weight of the one after
        # the last token says whether the model speaks there.
        pieces = np.stack([ends, places, ends], axis=1), np.stack([ones, lengths, ones], axis=1)
        sequence = self._tokens.read(pieces[0].ravel(), pieces[1].ravel())
        weights = loss_weights(sequence, self._chat, instruction_weight=0.0)
        return weights[np.cumsum(lengths + 2) - 1] == 1


def _draw_cuts(lengths: Array, generator: np.random.Generator) -> Array:
    """Draw the tokens that each piece, (N, 4), loses when its document begins at a random one."""
    ends = np.cumsum(lengths, axis=1)
    offsets = generator.integers(ends[:, -1])
    return np.clip(offsets[:, None] - (ends - lengths), 0, lengths)


def _check_system_prompts(groups: Sequence[ConversationSourceConfig]) -> None:
    known = [group.name for group in groups if group.system_prompts_path]
    for group in groups:
        for name, ratio in group.system_prompt_ratios.items():
            if ratio > 0 and name not in known:
                raise ValueError(
                    f"system_prompt_ratios of {group.name!r} names {name!r}, which has no system "
                    f"prompts (those that have: {', '.join(known) or 'none'}); set its "
                    "system_prompts_path, or drop it"
                )
