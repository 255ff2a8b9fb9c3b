import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dimgpt.config import SamplingConfig
from dimgpt.generation.sampling import (
    draw,
    forbid,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    next_token_probabilities,
    penalise_recent,
    penalise_repeated_top,
    penalise_repetition,
)
from dimgpt.text.special_tokens import SpecialTokens

FIXTURES = Path(__file__).parents[1] / "fixtures" / "dimensiongpt_sampling"
CASES = json.loads((FIXTURES / "sampling.json").read_text())
ARRAYS = np.load(FIXTURES / "arrays.npz")
SPECIAL_TOKENS = SpecialTokens()
STOPS = (SPECIAL_TOKENS.user, SPECIAL_TOKENS.end_of_text)
FORBIDDEN = [0, 1, 2, 5, 6, 7, 8]
CONTEXT_LENGTH = 64  # of the original's small model
# All that a vocabulary may lack: every one but the end of a text.
NAMES_OF_SPECIAL_TOKENS = (
    *("unknown", "padding", "start_of_text", "human", "system", "user", "assistant"),
)


def probabilities_of(
    logits: torch.Tensor, context_ids: list[int], config: SamplingConfig, *, is_chat: bool = False
) -> torch.Tensor:
    return next_token_probabilities(
        logits,
        torch.tensor(context_ids, dtype=torch.int64),
        config,
        SPECIAL_TOKENS,
        context_length=CONTEXT_LENGTH,
        stops=STOPS if is_chat else (),
    )


def original_case(case: dict) -> tuple[torch.Tensor, list[int], SamplingConfig]:
    config = SamplingConfig(
        temperature=case["temperature"],
        top_p=case["top_p"],
        no_repeat_strength=case["no_repeat_strength"],
    )
    logits = torch.from_numpy(ARRAYS[f"prob.{case['prompt']}"]).log()
    return logits, CASES["prompts"][case["prompt"]], config


@pytest.mark.parametrize(
    "case", [case for case in CASES["samples"] if case["dist"]], ids=lambda case: case["dist"]
)
def test_the_distribution_is_the_originals_up_to_the_border_token_of_top_p(case: dict) -> None:
    logits, context_ids, config = original_case(case)
    expected = ARRAYS[case["dist"]]
    ours = probabilities_of(logits, context_ids, config, is_chat=case["chatbot"]).numpy()
    is_kept = expected > 0
    extra = ours[~is_kept]
    # The original drops the token that crosses, and at top_p = 1 up to three by rounding.
    assert (extra > 0).sum() <= (1 if config.top_p < 1 else 3)
    assert extra.max() <= ours[is_kept].min()
    if 0 < config.top_p < 1:
        assert ours[is_kept].sum() < 1
    shared = np.where(is_kept, ours, 0) / ours[is_kept].sum()
    np.testing.assert_allclose(shared, expected, atol=2e-6)


@pytest.mark.parametrize("case", [case for case in CASES["samples"] if not case["dist"]])
def test_temperature_0_takes_the_originals_choice(case: dict) -> None:
    logits, context_ids, config = original_case(case)
    ours = probabilities_of(logits, context_ids, config, is_chat=case["chatbot"])
    assert int(ours.argmax()) == case["index"]
    assert float(ours.sum()) == 1


@pytest.mark.parametrize("temperature", [0.0, 1e-300, 0.7, 1.0, 1e300])
@pytest.mark.parametrize("is_chat", [False, True])
def test_forbidden_tokens_are_impossible_even_as_the_best(
    temperature: float, is_chat: bool
) -> None:
    logits = torch.zeros(20)
    logits[FORBIDDEN] = 500.0  # so probable that the others underflow to 0
    config = SamplingConfig(temperature=temperature)
    ours = probabilities_of(logits, [], config, is_chat=is_chat)
    assert ours[FORBIDDEN].sum() == 0
    assert float(ours.sum()) == pytest.approx(1)
    if is_chat and temperature <= 1:
        assert float(ours[SPECIAL_TOKENS.end_of_text]) == pytest.approx(1)


def test_a_tokenizer_without_special_tokens_forbids_nothing() -> None:
    special_tokens = SpecialTokens(**dict.fromkeys(NAMES_OF_SPECIAL_TOKENS))
    assert special_tokens.never_produced == []
    scores = torch.linspace(-1, 1, 20)
    assert torch.equal(forbid(scores, special_tokens), scores)


def test_without_a_chat_the_users_probability_goes_to_nobody_in_particular() -> None:
    logits = torch.zeros(20)
    logits[SPECIAL_TOKENS.user] = 5.0
    allowed = probabilities_of(logits, [], SamplingConfig())
    assert float(allowed[SPECIAL_TOKENS.end_of_text]) == pytest.approx(1 / 13)


def test_the_fading_penalty_multiplies_once_per_occurrence_by_its_age() -> None:
    scores = torch.full((12,), -1.0)
    penalised = penalise_recent(scores, torch.tensor([10, 11, 10]), 0.5, context_length=4)
    assert float(penalised[10]) == pytest.approx(-(1 + 0.5 * 4 / 4) * (1 + 0.5 * 2 / 4))
    assert float(penalised[11]) == pytest.approx(-(1 + 0.5 * 3 / 4))
    assert float(penalised[9]) == -1


def test_the_penalties_forget_what_lies_before_the_context() -> None:
    config = SamplingConfig(no_repeat_strength=1.0, repetition_penalty=1.5)
    logits = torch.randn(20, generator=torch.Generator().manual_seed(0))
    recent = [11] * CONTEXT_LENGTH
    assert torch.equal(
        probabilities_of(logits, [12, 13, *recent], config),
        probabilities_of(logits, recent, config),
    )


def test_the_fields_penalty_divides_positive_and_multiplies_negative_logits_once() -> None:
    logits = torch.tensor([2.0, -2.0, 2.0, -2.0])
    penalised = penalise_repetition(logits, torch.tensor([0, 1, 0, 1]), 2.0)
    assert penalised.tolist() == [1.0, -4.0, 2.0, -2.0]
    assert logits.tolist() == [2.0, -2.0, 2.0, -2.0]


def test_toygpts_penalty_divides_the_probability_of_a_repeated_top_token_and_of_no_other() -> None:
    scores = torch.tensor([0.2, 0.5, 0.3]).log()
    penalised = penalise_repeated_top(scores, torch.tensor([2, 1, 1]), 1.3)
    expected = [0.2, 0.5 * 10**-1.3, 0.3]  # the runner-up occurred as well
    assert penalised.exp().tolist() == pytest.approx(expected)
    assert torch.equal(penalise_repeated_top(scores, torch.tensor([0, 2]), 1.3), scores)


def toygpts_choice(probabilities: np.ndarray, ids: list[int], decades: float) -> int:
    """Compute what toyGPT takes, as its rule says."""
    punished = probabilities.copy()
    top = int(np.argmax(punished))
    if top in ids:
        punished[top] *= 10**-decades
    return int(np.argmax(punished))


@pytest.mark.parametrize("decades", [0.0, 0.2, 1.3, 1e300])
def test_greedy_choices_with_toygpts_penalty_are_those_of_its_rule(decades: float) -> None:
    config = SamplingConfig(temperature=0.0, top_repeat_penalty=decades)
    allowed = SpecialTokens(**dict.fromkeys(NAMES_OF_SPECIAL_TOKENS), end_of_text=0)
    generator, num_changed = np.random.default_rng(0), 0
    for _ in range(200):
        logits = torch.from_numpy(generator.normal(size=12).astype(np.float32))
        ids = generator.integers(12, size=100).tolist()[: generator.integers(100)]
        ours = next_token_probabilities(
            logits, torch.tensor(ids, dtype=torch.int64), config, allowed, context_length=4
        )
        expected = toygpts_choice(logits.double().softmax(dim=-1).numpy(), ids, decades)
        assert int(ours.argmax()) == expected
        num_changed += expected != int(logits.argmax())
    assert (num_changed > 0) == (decades > 0)


@pytest.mark.parametrize(("min_p", "kept"), [(0, 4), (0.2, 4), (0.3, 3), (0.5, 2), (1.0, 1)])
def test_min_p_keeps_what_is_at_least_so_many_times_the_most_probable(
    min_p: float, kept: int
) -> None:
    ratios = keep_min_p(torch.tensor([0.1, 0.5, 0.15, 0.25]), min_p)
    assert int((ratios > 0).sum()) == kept
    assert float(ratios.sum()) == pytest.approx(1)


def test_top_p_keeps_the_token_that_crosses() -> None:
    kept = keep_top_p(torch.tensor([0.1, 0.5, 0.15, 0.25]), 0.6)
    assert kept.tolist() == pytest.approx([0, 0.5 / 0.75, 0, 0.25 / 0.75])


@pytest.mark.parametrize(("top_p", "num_kept"), [(0.0, 1), (1e-9, 1), (0.5, 2), (1.0, 4)])
def test_top_p_at_its_borders_keeps_equals_by_id(top_p: float, num_kept: int) -> None:
    kept = keep_top_p(torch.full((4,), 0.25), top_p)
    assert (kept > 0).tolist() == [index < num_kept for index in range(4)]


@pytest.mark.parametrize(("k", "num_kept"), [(1, 1), (3, 3), (5, 5), (1000, 5)])
def test_top_k_keeps_k_tokens(k: int, num_kept: int) -> None:
    scores = torch.tensor([0.0, 3.0, 1.0, 2.0, -1.0])
    kept = keep_top_k(scores, k)
    assert int(kept.isfinite().sum()) == num_kept
    assert set(kept.topk(num_kept).indices.tolist()) == set(scores.topk(num_kept).indices.tolist())


@pytest.mark.slow
def test_rows_of_a_batch_are_independent() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 40, generator=generator)
    context_ids = torch.randint(0, 40, (3, 9), generator=generator)
    config = SamplingConfig(
        temperature=0.8,
        top_p=0.9,
        top_k=30,
        no_repeat_strength=0.5,
        repetition_penalty=1.2,
        top_repeat_penalty=1.3,
    )
    for is_chat in (False, True):
        for settings in (config, replace(config, temperature=0.0)):
            together = next_token_probabilities(
                logits,
                context_ids,
                settings,
                SPECIAL_TOKENS,
                context_length=64,
                stops=STOPS if is_chat else (),
            )
            for row in range(3):
                alone = probabilities_of(
                    logits[row], context_ids[row].tolist(), settings, is_chat=is_chat
                )
                torch.testing.assert_close(together[row], alone)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_damaged_logits_are_refused(bad: float) -> None:
    logits = torch.zeros(20)
    logits[15] = bad
    with pytest.raises(ValueError, match="weights are damaged"):
        probabilities_of(logits, [], SamplingConfig())


def test_draws_follow_the_probabilities_and_never_take_an_impossible_token() -> None:
    probabilities = torch.tensor([0.0, 0.2, 0.0, 0.7, 0.1, 0.0])
    generator = torch.Generator().manual_seed(0)
    counts = np.bincount([draw(probabilities, generator) for _ in range(4000)], minlength=6)
    np.testing.assert_allclose(counts / 4000, probabilities.numpy(), atol=0.03)
    assert counts[[0, 2, 5]].sum() == 0


@pytest.mark.parametrize("values", [[0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]])
def test_what_is_no_distribution_is_not_drawn_from(values: list[float]) -> None:
    with pytest.raises(ValueError, match="no token can be drawn"):
        draw(torch.tensor(values), torch.Generator())
