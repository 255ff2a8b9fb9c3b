"""Minimal pairs: how often a model finds the right sentence more probable than the wrong one.

As in BLiMP (Warstadt et al. 2020, https://arxiv.org/abs/1912.00582), the probability of a sentence
is the product of the probabilities of its tokens, without normalisation by length. A model that
guesses is right in half of the pairs.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from dimgpt.evaluation.intervals import share_interval
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime
from dimgpt.text.tokenizer import Tokenizer

CHANCE = 0.5


class Pair(NamedTuple):
    """Two sentences that differ in one point."""

    kind: str
    right: str
    wrong: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeScore:
    """A model's result on the pairs of one kind."""

    kind: str
    pairs: int
    """Number of scored pairs."""
    left_out: int
    """Number of pairs that the vocabulary cannot encode, or that are longer than the context."""
    accuracy: float
    """Share of the pairs whose right sentence is the more probable one, in 0..1."""
    low: float
    high: float
    """95 % confidence interval of the accuracy, too narrow if pairs have words in common."""
    chance: float = CHANCE


def score_pairs(
    model: Transformer, tokenizer: Tokenizer, pairs: Sequence[Pair], *, runtime: Runtime
) -> list[ProbeScore]:
    """Score pairs by kind, and all together in the last row.

    Args:
        model: On the runtime's device, in evaluation mode.
        tokenizer: The model's.
        pairs: The vocabulary must be able to encode at least one.
        runtime: Device and precision.

    Raises:
        ValueError: The vocabulary cannot encode any pair.
    """
    answers = are_right(model, tokenizer, pairs, runtime=runtime)
    rows = []
    for kind in [*dict.fromkeys(pair.kind for pair in pairs), "all"]:
        found = [x for pair, x in zip(pairs, answers, strict=True) if kind in (pair.kind, "all")]
        known = [is_right for is_right in found if is_right is not None]
        if not known and kind == "all":
            raise ValueError(
                f"the vocabulary cannot encode any of the {len(found):,} pairs: it lacks their "
                "letters; measure a model of their language"
            )
        low, high = share_interval(sum(known), len(known)) if known else (0.0, 1.0)
        accuracy = sum(known) / len(known) if known else math.nan
        counts = {"pairs": len(known), "left_out": len(found) - len(known)}
        rows.append(ProbeScore(kind=kind, **counts, accuracy=accuracy, low=low, high=high))
    return rows


def are_right(
    model: Transformer, tokenizer: Tokenizer, pairs: Sequence[Pair], *, runtime: Runtime
) -> list[bool | None]:
    """Return whether the right sentence of each pair is more probable; `None` if left out."""
    limit, unknown = model.config.context_length + 1, tokenizer.special_tokens.unknown
    written = [[tokenizer.encode_beginning(text) for text in pair[1:]] for pair in pairs]
    usable = [all(1 < len(ids) <= limit and unknown not in ids for ids in both) for both in written]
    sentences = itertools.chain.from_iterable(itertools.compress(written, usable))
    scores = iter(log_probabilities(model, list(sentences), runtime=runtime))
    return [next(scores) > next(scores) if is_usable else None for is_usable in usable]


@torch.inference_mode()
def log_probabilities(
    model: Transformer,
    sequences: Sequence[Sequence[int]],
    *,
    runtime: Runtime,
    batch_size: int = 64,
) -> list[float]:
    """Return the log-probability of each sequence after its first token, in nats.

    Args:
        model: On the runtime's device, in evaluation mode.
        sequences: Each of 2 to context_length + 1 ids.
        runtime: Device and precision.
        batch_size: Sequences per forward pass.
    """
    order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]))
    sums = [0.0] * len(sequences)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        rows = [torch.tensor(sequences[number]) for number in batch]
        inputs = pad_sequence([row[:-1] for row in rows], batch_first=True)
        targets = pad_sequence([row[1:] for row in rows], batch_first=True, padding_value=-100)
        with runtime.autocast():
            logits = model(inputs.to(runtime.device))
        targets = targets.to(runtime.device)
        losses = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
        losses = losses.view(targets.shape)  # (B, T), 0 at padding
        for number, loss in zip(batch, losses.cpu().double().sum(dim=1).tolist(), strict=True):
            sums[number] = -loss
    return sums
