"""The probability of each token of a text, and the alternatives."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dimgpt.model.transformer import Transformer


class Guess(NamedTuple):
    """A possible next token."""

    id: int
    ratio: float
    """Probability, in 0..1; for `nearest_tokens`, the cosine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SeenToken:
    """One token of a text, with the model's alternatives."""

    id: int
    ratio: float | None
    """Probability of the token, in 0..1; `None` for the first token of the text."""
    rank: int | None
    """1 for the most probable token; equally probable tokens share a rank."""
    alternatives: tuple[Guess, ...]
    """The most probable tokens in this place, best first; the token itself may be among them."""


def look_at_tokens(model: Transformer, ids: Sequence[int], *, count: int = 5) -> list[SeenToken]:
    """Return each token of a text with its probability and its alternatives.

    Args:
        model: In evaluation mode.
        ids: At least one token, at most a context.
        count: Alternatives per token, at most the vocabulary.

    Raises:
        ValueError: There is no token, or more than a context.
    """
    ratios = _log_ratios(model, ids)[:-1].exp()  # (T - 1, V)
    given = ratios.gather(1, torch.tensor(list(ids[1:]), device=ratios.device)[:, None])
    ranks = 1 + (ratios > given).sum(dim=-1)
    seen = [SeenToken(id=ids[0], ratio=None, rank=None, alternatives=())]
    for id, ratio, rank, alternatives in zip(
        ids[1:], given[:, 0].tolist(), ranks.tolist(), top_guesses(ratios, count), strict=True
    ):
        seen.append(SeenToken(id=id, ratio=ratio, rank=rank, alternatives=alternatives))
    return seen


def surprisals(model: Transformer, ids: Sequence[int]) -> list[float]:
    """Return -log2 of the probability of each token after the first, in bits.

    Args:
        model: In evaluation mode.
        ids: At least one token, at most a context.

    Raises:
        ValueError: There is no token, or more than a context.
    """
    logs = _log_ratios(model, ids)[:-1]
    given = torch.tensor(list(ids[1:]), device=logs.device)
    return (-logs.gather(1, given[:, None])[:, 0] / math.log(2)).tolist()


def best_guesses(model: Transformer, ids: Sequence[int], *, count: int = 10) -> list[Guess]:
    """Return the most probable next tokens after a text, best first.

    Args:
        model: In evaluation mode.
        ids: At least one token, at most a context.
        count: Number of guesses, at most the vocabulary.

    Raises:
        ValueError: There is no token, or more than a context.
    """
    return list(top_guesses(_log_ratios(model, ids)[-1:].exp(), count)[0])


def top_guesses(ratios: Tensor, count: int) -> list[tuple[Guess, ...]]:
    """Return the `count` largest values of each row of (T, V), with their columns as ids."""
    best = ratios.topk(min(count, ratios.shape[-1]))
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [tuple(map(Guess, *row)) for row in rows]


def as_batch(model: Transformer, ids: Sequence[int]) -> Tensor:
    """Return ids as one row for the model, int64 (1, T), on its device.

    Raises:
        ValueError: There are no ids.
    """
    if not len(ids):
        raise ValueError("the text has no token: give at least one")
    return torch.tensor([list(ids)], device=model.token_embedding.weight.device)


@torch.inference_mode()
def _log_ratios(model: Transformer, ids: Sequence[int]) -> Tensor:
    """Return the log-probabilities of the token after each one, (T, V), float32."""
    return model(as_batch(model, ids))[0].float().log_softmax(dim=-1)
