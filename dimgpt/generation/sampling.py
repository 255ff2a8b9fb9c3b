"""Turns the logits of the next token into a choice, with pure functions.

Penalties come first, then temperature, forbidden tokens, top-k, min-p and top-p. Shapes: V
vocabulary, T tokens so far; a leading batch dimension is allowed everywhere but in `draw`.

Three things differ from the original DimensionGPT on purpose. Top-p keeps the token that crosses
`top_p`. Temperature 0 never takes a forbidden token. And temperature 0 ends an answer in a chat
when the token of the user's turn is the most probable.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dimgpt.config import SamplingConfig
from dimgpt.text.special_tokens import SpecialTokens

# Limits that keep products inside float32 (3e38); tokens beyond them have probability 0 anyway.
_MAX_LOG_FACTOR = 46.0  # a factor of 1e20
_MAX_PENALTY = 1e12
_MAX_LOG_PENALTY = 1e30
_MIN_TEMPERATURE = 1e-30


def next_token_probabilities(
    logits: Tensor,
    context_ids: Tensor,
    config: SamplingConfig,
    special_tokens: SpecialTokens,
    *,
    context_length: int,
    stops: Sequence[int] = (),
) -> Tensor:
    """Compute the distribution from which the next token is drawn.

    Args:
        logits: The model's output at the last position, (V,) or (B, V).
        context_ids: All tokens so far, int64 (T,) or (B, T), on the CPU.
        config: Settings; `max_new_tokens` and `seed` have no effect.
        special_tokens: Ids that are never produced, or that end an answer.
        context_length: Number of last tokens that penalties consider; toyGPT's considers all.
        stops: Further ids that end an answer, as ⮜user⮞ does in a chat.

    Returns:
        Probabilities, float32, in the shape of `logits`; one-hot at temperature 0.

    Raises:
        ValueError: The largest logit is NaN or infinite.
    """
    _require_finite(logits)
    recent, strength = context_ids[..., -context_length:], config.no_repeat_strength
    scores = penalise_repetition(logits.float(), recent, config.repetition_penalty)
    scores = scores.log_softmax(dim=-1)
    scores = penalise_recent(scores, recent, strength, context_length=context_length)
    scores = penalise_repeated_top(scores, context_ids, config.top_repeat_penalty)
    # Subtract the maximum first, so that one score stays finite at any temperature.
    scores = scores - scores.amax(dim=-1, keepdim=True)
    if config.temperature > 0:
        scores = scores / max(config.temperature, _MIN_TEMPERATURE)
    if stops:
        scores = end_at_stops(scores, special_tokens, stops, is_greedy=config.temperature == 0)
    scores = forbid(scores, special_tokens)
    if config.temperature == 0:
        return torch.zeros_like(scores).scatter(-1, scores.argmax(dim=-1, keepdim=True), 1.0)
    if config.top_k is not None:
        scores = keep_top_k(scores, config.top_k)
    probabilities = keep_min_p(scores.softmax(dim=-1), config.min_p)
    return keep_top_p(probabilities, config.top_p)


def penalise_repetition(logits: Tensor, context_ids: Tensor, penalty: float) -> Tensor:
    """Divide positive logits of tokens that occurred by `penalty`, multiply negative ones by it.

    Keskar et al. 2019, "CTRL", https://arxiv.org/abs/1909.05858, section 4.1, with logits of both
    signs as in `transformers`. A penalty of 1 is off. A token is penalised once, however often it
    occurred.
    """
    if penalty == 1 or context_ids.shape[-1] == 0:
        return logits
    penalty = min(max(penalty, 1 / _MAX_PENALTY), _MAX_PENALTY)
    context_ids = context_ids.to(logits.device)
    old = logits.gather(-1, context_ids)
    return logits.scatter(-1, context_ids, torch.where(old > 0, old / penalty, old * penalty))


def penalise_recent(
    log_probabilities: Tensor, context_ids: Tensor, strength: float, *, context_length: int
) -> Tensor:
    """Apply DimensionGPT's repetition penalty, which decreases with distance.

    The token `age` positions before the newest one multiplies its own log-probability by 1 +
    strength * (context_length - age) / context_length. Repeated occurrences multiply. 0 is off.

    Args:
        log_probabilities: (V,) or (B, V).
        context_ids: Oldest first, (T,) or (B, T), at most `context_length` of them.
        strength: Penalty of the newest token, 0 or more.
        context_length: Distance at which the penalty is 0.
    """
    if strength == 0 or context_ids.shape[-1] == 0:
        return log_probabilities
    num_tokens = context_ids.shape[-1]
    ages = torch.arange(num_tokens - 1, -1, -1, dtype=torch.float64)
    log_factors = torch.log1p(strength * (context_length - ages) / context_length)
    # On the CPU in float64: adding with repeats is neither exact nor reproducible on a GPU.
    sums = torch.zeros(log_probabilities.shape, dtype=torch.float64)
    sums = sums.scatter_add(-1, context_ids.cpu(), log_factors.expand(context_ids.shape))
    factors = sums.clamp(max=_MAX_LOG_FACTOR).exp().float()
    return log_probabilities * factors.to(log_probabilities.device)


def penalise_repeated_top(log_probabilities: Tensor, context_ids: Tensor, decades: float) -> Tensor:
    """Divide the probability of the most probable token by 10**decades if it occurred already.

    toyGPT's penalty, https://github.com/fritzprix/toyGPT. It affects only one token: the second
    most probable one is never penalised. 0 is off.

    Args:
        log_probabilities: (V,) or (B, V).
        context_ids: (T,) or (B, T).
        decades: Powers of 10, 0 or more.
    """
    if decades == 0 or context_ids.shape[-1] == 0:
        return log_probabilities
    top = log_probabilities.argmax(dim=-1, keepdim=True)
    occurred = (context_ids.to(top.device) == top).any(dim=-1, keepdim=True)
    penalty = min(decades * math.log(10), _MAX_LOG_PENALTY)
    penalised = log_probabilities.gather(-1, top) - penalty * occurred
    return log_probabilities.scatter(-1, top, penalised)


def end_at_stops(
    scores: Tensor, special_tokens: SpecialTokens, stops: Sequence[int], *, is_greedy: bool
) -> Tensor:
    """Add the probability of the stop tokens to that of end-of-text.

    Args:
        scores: Log-probabilities up to a constant, (V,) or (B, V).
        special_tokens: Has the end-of-text token.
        stops: Ids that end an answer.
        is_greedy: Take the largest probability instead of the sum, which is the limit of
            temperature 0.
    """
    end = special_tokens.end_of_text
    ends = scores[..., [end, *(id for id in stops if id != end)]]
    scores = scores.clone()
    scores[..., end] = ends.amax(dim=-1) if is_greedy else ends.logsumexp(dim=-1)
    return scores


def forbid(scores: Tensor, special_tokens: SpecialTokens) -> Tensor:
    """Set the scores of tokens that an answer never contains to minus infinity."""
    # An empty tensor without a dtype would be of floats.
    ids = torch.tensor(special_tokens.never_produced, dtype=torch.int64, device=scores.device)
    return scores.index_fill(-1, ids, -math.inf)


def keep_top_k(scores: Tensor, k: int) -> Tensor:
    """Set all but the `k` largest scores to minus infinity."""
    if k >= scores.shape[-1]:
        return scores
    top = scores.topk(k, dim=-1)
    return torch.full_like(scores, -math.inf).scatter(-1, top.indices, top.values)


def keep_min_p(probabilities: Tensor, min_p: float) -> Tensor:
    """Keep tokens with at least `min_p` times the largest probability, scaled to a sum of 1.

    Nguyen et al. 2024, https://arxiv.org/abs/2407.01082. 0 keeps all.
    """
    if min_p == 0:
        return probabilities
    least = min_p * probabilities.amax(dim=-1, keepdim=True)
    kept = probabilities * (probabilities >= least)
    return kept / kept.sum(dim=-1, keepdim=True)


def keep_top_p(probabilities: Tensor, top_p: float) -> Tensor:
    """Keep the most probable tokens whose sum first reaches `top_p`, scaled to a sum of 1.

    The token that crosses `top_p` is kept, so there is always one. Equal tokens are ordered by id.
    Holtzman et al. 2019, https://arxiv.org/abs/1904.09751, section 3.1.
    """
    if top_p >= 1:
        return probabilities
    ranked, ids = probabilities.sort(dim=-1, descending=True, stable=True)
    is_kept = ranked.cumsum(dim=-1) - ranked < top_p
    is_kept[..., 0] = True  # also for top_p = 0
    kept = torch.zeros_like(probabilities).scatter(-1, ids, ranked * is_kept)
    return kept / kept.sum(dim=-1, keepdim=True)


def draw(probabilities: Tensor, generator: torch.Generator) -> int:
    """Draw one id from probabilities (V,), with one number of the CPU generator.

    The same seed gives the same choice on every device if the probabilities agree.

    Raises:
        ValueError: The probabilities have no finite, positive sum.
    """
    sums = probabilities.cpu().double().cumsum(dim=0)
    total = float(sums[-1])
    if not 0 < total < math.inf:
        raise ValueError(
            f"the probabilities sum to {total}: no token can be drawn; check the logits"
        )
    point = torch.rand(1, generator=generator, dtype=torch.float64) * total
    return int(torch.searchsorted(sums, point, right=True))


def _require_finite(logits: Tensor) -> None:
    peak = float(logits.max())
    if not math.isfinite(peak):
        raise ValueError(
            f"the model's largest logit is {peak}: its weights are damaged, or float16 overflowed; "
            "load undamaged weights, or compute in float32"
        )
