"""A text that is being generated, and the choice of its next token.

Texts with equal settings are sampled together. An error in one of them ends only that one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from dimgpt.config import SamplingConfig
from dimgpt.generation.sampling import draw, next_token_probabilities
from dimgpt.generation.scores import Score, score
from dimgpt.text.special_tokens import SpecialTokens

End = Literal["stop", "length", "removed", "failed"]
"""Why a text ended: by the model, at the maximum length, by `Engine.remove`, or by an error."""


@dataclass(eq=False, kw_only=True, slots=True)
class Continuation:
    """A text that an engine continues."""

    ids: list[int]
    """The prompt and the new tokens, without end-of-text."""
    config: SamplingConfig
    """Without seed and number of tokens, so that texts with equal settings are sampled together."""
    stops: tuple[int, ...]
    num_left: int
    """Number of tokens that may still be added."""
    num_read: int
    """Tokens of the prompt that are already in its row of the cache."""
    generator: torch.Generator
    num_scored: int | None
    """Alternatives to keep in `scores`; `None` keeps no scores."""
    scores: list[Score] = field(default_factory=list)
    """One per new token, end-of-text included."""
    end: End | None = None
    """Why the text ended; `None` while it grows."""


OnError = Callable[[Continuation, Exception], None]
"""Called with a text whose next token cannot be chosen, before it ends."""


def raise_error(_: Continuation, error: Exception) -> None:
    """Raise the error."""
    raise error


def add_tokens(
    continuations: list[Continuation],
    logits: Tensor,
    special_tokens: SpecialTokens,
    *,
    context_length: int,
    on_error: OnError,
) -> None:
    """Add the next token to each text, or end it.

    Args:
        continuations: B texts.
        logits: (B, V), after their last tokens.
        special_tokens: Ids that are never produced, or that end a text.
        context_length: Number of last tokens that penalties consider.
        on_error: Called for each text that fails; if it does not raise, the others continue.
    """
    groups: dict[object, list[tuple[int, Continuation]]] = {}
    for row, each in enumerate(continuations):
        length = len(each.ids) if each.config.has_penalty else None
        groups.setdefault((each.config, each.stops, length), []).append((row, each))
    for group in groups.values():
        _add_to_group(group, logits, special_tokens, context_length, on_error)


def _add_to_group(
    group: list[tuple[int, Continuation]],
    logits: Tensor,
    special_tokens: SpecialTokens,
    context_length: int,
    on_error: OnError,
) -> None:
    """Add the next token to texts with the same settings."""
    try:
        probabilities = _probabilities(group, logits, special_tokens, context_length)
    except Exception as error:
        if len(group) == 1:
            _fail(group[0][1], error, on_error)
        else:
            for one in group:  # one by one, so only the failing texts end
                _add_to_group([one], logits, special_tokens, context_length, on_error)
        return
    for (row, each), one in zip(group, probabilities, strict=True):
        try:
            _add_token(each, logits[row], one, special_tokens.end_of_text)
        except Exception as error:
            _fail(each, error, on_error)


def _fail(continuation: Continuation, error: Exception, on_error: OnError) -> None:
    on_error(continuation, error)
    continuation.end = "failed"


def _probabilities(
    group: list[tuple[int, Continuation]],
    logits: Tensor,
    special_tokens: SpecialTokens,
    context_length: int,
) -> Tensor:
    """Return the distributions of the next tokens, on the CPU."""
    rows, continuations = zip(*group, strict=True)
    config = continuations[0].config
    contexts = [each.ids if config.has_penalty else [] for each in continuations]
    return next_token_probabilities(
        logits[list(rows)] if len(rows) < len(logits) else logits,
        torch.tensor(contexts, dtype=torch.int64),
        config,
        special_tokens,
        context_length=context_length,
        stops=continuations[0].stops,
    ).cpu()


def _add_token(each: Continuation, logits: Tensor, probabilities: Tensor, end_of_text: int) -> None:
    """Choose a token by its probability, (V,), and add it, or end the text."""
    is_greedy = each.config.temperature == 0
    id = int(probabilities.argmax()) if is_greedy else draw(probabilities, each.generator)
    if each.num_scored is not None:
        each.scores.append(score(logits, id, each.num_scored))
    each.num_left -= 1
    if id == end_of_text:
        each.end = "stop"
    else:
        each.ids.append(id)
        each.end = None if each.num_left else "length"
