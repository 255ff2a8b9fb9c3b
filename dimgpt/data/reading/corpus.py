"""A corpus: the token files of several sources, and how often each is drawn.

Multipliers and ratios act here, when files are opened, so changing one never tokenises anything
again. What is drawn from a source, and how rows are made of it, is the readers' matter
(`pretraining.py`, `finetuning.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.data.manifest import SYSTEM_PROMPTS, read_manifest
from dimgpt.data.token_file import TokenFile


@dataclass(frozen=True, kw_only=True, slots=True)
class CorpusRow:
    """One source in the table of a corpus."""

    source: str
    group: str
    documents: int
    tokens: int
    multiplier: float
    ratio: float
    """Share of the draws, in 0..1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """One split of several sources."""

    files: tuple[TokenFile, ...]
    ratios: np.ndarray[Any, Any]
    """Share of the draws of each file, float64, sum 1."""


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
        cls,
        folder: Path,
        sources: Sequence[SourceConfig],
        tokenizer_fingerprint: str,
        *,
        verify: bool = True,
    ) -> "Corpus":
        """Open the prepared folder of every source, `folder/<source name>`.

        Args:
            folder: Such as `data/demo/pretraining`.
            sources: At least one; their multipliers apply now.
            tokenizer_fingerprint: sha256 of the vocabulary that the files must belong to.
            verify: Read the files once to check their sha256 (about 1 GB/s).

        Raises:
            FileNotFoundError: A source is not prepared.
            ValueError: There is no source, or a file is damaged or of another vocabulary.
        """
        if not sources:
            raise ValueError("sources is empty: name one in DataConfig.sources")
        manifests = [read_manifest(folder / source.name) for source in sources]
        has_test = all("test" in manifest.files for manifest in manifests)
        splits = {}
        for split in ("train", "validation", *(["test"] if has_test else [])):
            files = tuple(
                TokenFile(
                    folder / source.name, split, fingerprint=tokenizer_fingerprint, verify=verify
                )
                for source in sources
            )
            sizes = [
                file.num_tokens * source.multiplier
                for file, source in zip(files, sources, strict=True)
            ]
            splits[split] = Mixture(files=files, ratios=_normalised(sizes))
        return cls(sources=tuple(sources), **splits)

    def table(self) -> list[CorpusRow]:
        """Return size, multiplier and share of each source, in the training split."""
        return [
            CorpusRow(
                source=source.name,
                group=source.group,
                documents=file.num_documents,
                tokens=file.num_tokens,
                multiplier=source.multiplier,
                ratio=float(ratio),
            )
            for source, file, ratio in zip(
                self.sources, self.train.files, self.train.ratios, strict=True
            )
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
        cls,
        folder: Path,
        groups: Sequence[ConversationSourceConfig],
        tokenizer_fingerprint: str,
        *,
        verify: bool = True,
    ) -> "ConversationCorpus":
        """Open the prepared folder of every group, `folder/<group name>`.

        Args:
            folder: Such as `data/demo/finetuning`.
            groups: At least one; their ratios apply now, scaled to a sum of 1.
            tokenizer_fingerprint: sha256 of the vocabulary that the files must belong to.
            verify: Read the files once to check their sha256 (about 1 GB/s).

        Raises:
            FileNotFoundError: A group is not prepared.
            ValueError: A file is damaged or of another vocabulary, or something named is missing.
        """
        if not groups:
            raise ValueError("conversations is empty: name one in DataConfig.conversations")

        def open_file(group: ConversationSourceConfig, name: str) -> TokenFile:
            path = folder / group.name
            return TokenFile(path, name, fingerprint=tokenizer_fingerprint, verify=verify)

        ratios = _normalised([group.ratio for group in groups])
        splits = {
            split: Mixture(files=tuple(open_file(group, split) for group in groups), ratios=ratios)
            for split in ("train", "validation")
        }
        prompts = tuple(
            open_file(group, SYSTEM_PROMPTS) if group.system_prompts_path else None
            for group in groups
        )
        corpus = cls(groups=tuple(groups), system_prompts=prompts, **splits)
        corpus._check_system_prompts()
        return corpus

    def _check_system_prompts(self) -> None:
        known = [
            group.name
            for group, file in zip(self.groups, self.system_prompts, strict=True)
            if file is not None
        ]
        for group in self.groups:
            for name, ratio in group.system_prompt_ratios.items():
                if ratio > 0 and name not in known:
                    raise ValueError(
                        f"system_prompt_ratios of {group.name!r} names {name!r}, which has no "
                        f"system prompts (those that have: {', '.join(known) or 'none'}); set its "
                        "system_prompts_path, or drop it"
                    )


def _normalised(sizes: Sequence[float]) -> np.ndarray[Any, Any]:
    values = np.asarray(sizes, dtype=np.float64)
    return values / values.sum()
