"""Opens the token files of several sources, and decides how often each is drawn.

Multipliers and ratios apply when files are opened: after changing one, nothing is tokenized again.
`pretraining.py` and `finetuning.py` draw rows from a corpus.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.data.token_file import SYSTEM_PROMPTS, TokenFile, read_manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """One split of several sources."""

    files: tuple[TokenFile, ...]
    ratios: np.ndarray[Any, Any]
    """Share of the draws of each file, float64, sum 1."""

    @classmethod
    def of(cls, files: Sequence[TokenFile], weights: Sequence[float]) -> "Mixture":
        """Draw from each file in proportion to its weight."""
        values = np.asarray(weights, dtype=np.float64)
        return cls(files=tuple(files), ratios=values / values.sum())


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Documents of several sources, drawn in proportion to tokens × multiplier."""

    sources: tuple[SourceConfig, ...]
    train: Mixture
    validation: Mixture
    test: Mixture | None = None
    """Held back until the end; `None` unless all sources were prepared with a `test_ratio`."""

    @classmethod
    def open(
        cls, folder: Path, sources: Sequence[SourceConfig], tokenizer_fingerprint: str
    ) -> "Corpus":
        """Open the prepared folder of every source, `folder/<source name>`.

        Args:
            folder: Such as `data/demo/pretraining`.
            sources: At least one; their multipliers apply now.
            tokenizer_fingerprint: sha256 of the vocabulary that the files must belong to.

        Raises:
            FileNotFoundError: A source is not prepared.
            ValueError: There is no source, or a file is damaged or of another vocabulary.
        """
        if not sources:
            raise ValueError("sources is empty: name one in DataConfig.sources")
        open_file = functools.partial(TokenFile, fingerprint=tokenizer_fingerprint)
        manifests = [read_manifest(folder / source.name) for source in sources]
        has_test = all("test" in manifest.files for manifest in manifests)
        splits = {}
        for split in ("train", "validation", *(["test"] if has_test else [])):
            files = [open_file(folder / source.name, split) for source in sources]
            pairs = zip(files, sources, strict=True)
            splits[split] = Mixture.of(files, [f.num_tokens * s.multiplier for f, s in pairs])
        return cls(sources=tuple(sources), **splits)

    def table(self) -> list[dict[str, Any]]:
        """Return size, multiplier and share of the draws of each source, in the training split."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationCorpus:
    """Conversations of several groups, drawn by the groups' ratios, and their system prompts."""

    groups: tuple[ConversationSourceConfig, ...]
    train: Mixture
    validation: Mixture
    system_prompts: tuple[TokenFile | None, ...]
    """System prompts of each group; `None` for a group that has none of its own."""

    @classmethod
    def open(
        cls, folder: Path, groups: Sequence[ConversationSourceConfig], tokenizer_fingerprint: str
    ) -> "ConversationCorpus":
        """Open the prepared folder of every group, `folder/<group name>`.

        Args:
            folder: Such as `data/demo/finetuning`.
            groups: At least one; their ratios apply now, scaled to a sum of 1.
            tokenizer_fingerprint: sha256 of the vocabulary that the files must belong to.

        Raises:
            FileNotFoundError: A group is not prepared.
            ValueError: A file is damaged or of another vocabulary, or something named is missing.
        """
        if not groups:
            raise ValueError("conversations is empty: name one in DataConfig.conversations")
        _check_system_prompts(groups)
        open_file = functools.partial(TokenFile, fingerprint=tokenizer_fingerprint)
        ratios = [group.ratio for group in groups]
        splits = {
            split: Mixture.of([open_file(folder / group.name, split) for group in groups], ratios)
            for split in ("train", "validation")
        }
        prompts = tuple(
            open_file(folder / group.name, SYSTEM_PROMPTS) if group.system_prompts_path else None
            for group in groups
        )
        return cls(groups=tuple(groups), system_prompts=prompts, **splits)


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
