"""What a model expects, token by token: to look at, not to score with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dimgpt.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class Guess:
    """A token that may come next."""

    id: int
    ratio: float
    """Probability, in 0..1."""


@torch.inference_mode()
def surprisals(model: Transformer, ids: Sequence[int]) -> list[float]:
    """Return -log2 of the probability that each token after the first was given, in bits.

    Args:
        model: In evaluation mode.
        ids: At least two tokens, at most a context.
    """
    sequence = torch.tensor([list(ids)], device=model.token_embedding.weight.device)
    scores = model(sequence)[0, :-1].float().log_softmax(dim=-1)
    chosen = scores.gather(-1, sequence[0, 1:, None])[:, 0]
    return [-score / math.log(2) for score in chosen.tolist()]


@torch.inference_mode()
def best_guesses(model: Transformer, ids: Sequence[int], *, count: int = 10) -> list[Guess]:
    """Return the most probable tokens after a text, best first.

    Args:
        model: In evaluation mode.
        ids: At least one token, at most a context.
        count: Of a smaller vocabulary, all tokens.
    """
    sequence = torch.tensor([list(ids)], device=model.token_embedding.weight.device)
    scores = model(sequence)[0, -1].float().softmax(dim=-1)
    best = scores.topk(min(count, len(scores)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [Guess(id=id, ratio=ratio) for id, ratio in pairs]
