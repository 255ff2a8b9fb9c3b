"""Batches for fine-tuning: conversations with their system prompts, with loss weights.

A document is a conversation, with or without a system prompt, enclosed in the chat format's tokens.
Its group is drawn by the groups' ratios, the conversation in proportion to its tokens, the system
prompt by the group's ratios of prompts. By default a row begins at a random token of a document and
continues with complete documents, each newly drawn, until it has `context_length + 1` tokens; the
last one is cut there. `DataConfig.packing` selects other rows. The published model drew the
conversations after a row's first uniformly, and validated with one fixed system prompt: see
`later_conversations` and `validation_system_prompt`.
"""

import functools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimgpt.config import ConversationSourceConfig, PreferenceSourceConfig
from dimgpt.data.reading.batch import Batch, DrawnBatches, DrawRows
from dimgpt.data.reading.conversation_rows import ConcatenatedRows
from dimgpt.data.reading.packed import PackedRows, PaddedRows, with_equal_weight
from dimgpt.data.reading.pretraining import Mixture
from dimgpt.data.token_file import SYSTEM_PROMPTS, TokenFile
from dimgpt.text.chat_format import ChatIds

log = logging.getLogger(__name__)
_CHECKED_BATCHES = 16
_ROWS: dict[str, type[ConcatenatedRows] | type[PackedRows]] = {
    "concatenate": ConcatenatedRows,
    "best_fit": PackedRows,
    "pad": PaddedRows,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationCorpus:
    """Conversations of several groups, drawn by the groups' ratios, and their system prompts."""

    sources: tuple[ConversationSourceConfig, ...]
    """The groups."""
    train: Mixture
    validated: tuple[ConversationSourceConfig, ...]
    """The groups that have a validation split."""
    validation: Mixture
    system_prompts: tuple[TokenFile | None, ...]
    """System prompts of each group; `None` for a group that has none of its own."""

    @classmethod
    def open(
        cls, folder: Path, groups: Sequence[ConversationSourceConfig], tokenizer_fingerprint: str
    ) -> "ConversationCorpus":
        """Open the prepared folder of every group, `folder/<group name>`, as `Corpus.open` does.

        The ratios of the groups are scaled to a sum of 1; changing them needs no new preparation.

        Raises:
            ValueError: A group uses system prompts that do not exist; or as `Corpus.open`.
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
        """Return size and ratio of each group in the training split."""
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
        packing: str = "concatenate",
        padding: int = 0,
        **shape: int,
    ) -> None:
        """Prepare to read a corpus; `shape` holds the named arguments of `DrawnBatches`.

        Args:
            corpus: Its conversations.
            chat: The chat format.
            instruction_weight: Loss weight, in 0..1, of tokens that the model does not learn to
                say; in validation it is 0.
            is_later_uniform: Draw the conversations after a row's first uniformly in their group,
                else in proportion to their tokens.
            validation_prompts: Group -> ids of its `validation_system_prompt`, if it has one.
            packing: As in `DataConfig`.
            padding: Id that fills up a row.
            shape: See above.
        """
        self.corpus, self._is_padded = corpus, packing == "pad"
        names = [group.name for group in corpus.sources]
        make = functools.partial(
            _ROWS[packing],
            prompts=dict(zip(names, corpus.system_prompts, strict=True)),
            chat=chat,
            is_later_uniform=is_later_uniform,
            padding=padding,
            context_length=shape["context_length"],
        )
        train = make(corpus.sources, corpus.train, instruction_weight=instruction_weight)
        fixed: Any = {"instruction_weight": 0.0, "fixed_prompts": validation_prompts}
        validation = make(corpus.validated, corpus.validation, **fixed)
        super().__init__(train.draw, validation.draw, **shape)
        used = self._used_share(train) if isinstance(train, PackedRows) else 1.0
        share = f"conversations take {used:.1%} of the tokens, padding {1 - used:.1%}"
        self.row_use = f"{packing}: {share}"
        if isinstance(train, PackedRows):
            self._check_packed()

    def _check_packed(self) -> None:
        """Log the share of padding, and refuse validation rows without an answer.

        Raises:
            ValueError: All are cut before an answer begins.
        """
        log.warning("rows for fine-tuning, %s", self.row_use)
        if not any(batch.weights.any() for batch in self.validation_batches(_CHECKED_BATCHES)):
            raise ValueError(
                f"no validation answer begins within the context of {self._row_length - 1} tokens: "
                "use shorter prompts, or --packing concatenate (PACKING in training.ipynb)"
            )

    def _used_share(self, rows: PackedRows) -> float:
        size = (self._batch_size * self._accumulation_steps, self._row_length)
        drawn = [rows.arrange(self._generator(step), *size) for step in range(1, 5)]
        return sum(int(lengths.sum()) for *_, lengths in drawn) / (len(drawn) * math.prod(size))

    def _draw(
        self, draw: DrawRows, generator: np.random.Generator, num_batches: int
    ) -> list[Batch]:
        batches = super()._draw(draw, generator, num_batches)
        return with_equal_weight(batches) if self._is_padded else batches


def _check_system_prompts(groups: Sequence[ConversationSourceConfig]) -> None:
    known = [group.name for group in groups if group.system_prompts_path]
    for group in groups:
        for name, ratio in group.system_prompt_ratios.items():
            if ratio > 0 and name not in known:
                raise ValueError(
                    f"system_prompt_ratios of {group.name!r} names {name!r}, which has no system "
                    f"prompts (groups with prompts: {', '.join(known) or 'none'}); set its "
                    "system_prompts_path, or remove it"
                )
