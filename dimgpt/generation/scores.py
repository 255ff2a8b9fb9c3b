"""The log-probability of a token under the model, and the most probable alternatives."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dimgpt.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """The model's own probability of a token: before temperature, penalties and cuts."""

    log_probability: float
    """In nats."""
    alternatives: dict[int, float]
    """Most probable ids, best first -> their log-probability in nats."""


@torch.inference_mode()
def score_tokens(model: Transformer, ids: Sequence[int], num_alternatives: int) -> list[Score]:
    """Score the tokens of a text after the first one; the text must fit into the context.

    The model must be in evaluation mode.
    """
    sequence = torch.tensor(list(ids), device=model.token_embedding.weight.device)
    logits = model(sequence[None])[0, :-1].float()
    return [score(logits[at], id, num_alternatives) for at, id in enumerate(ids[1:])]


def score(logits: Tensor, id: int, num_alternatives: int) -> Score:
    """Score a token, given the logits, (V,), of its position."""
    log_probabilities = logits.log_softmax(dim=-1)
    best = log_probabilities.topk(min(num_alternatives, len(logits)))
    alternatives = dict(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return Score(log_probability=float(log_probabilities[id]), alternatives=alternatives)
