"""Settings of the sampler and prompts at and beyond their limits: a valid id, or a `ValueError`."""

import math
import random
from dataclasses import replace

import pytest
import torch

from dimgpt.config import ModelConfig, SamplingConfig
from dimgpt.generation.generator import generate_ids
from dimgpt.generation.sampling import draw, next_token_probabilities
from dimgpt.model.transformer import Transformer
from dimgpt.text.special_tokens import SpecialTokens

SPECIAL_TOKENS = SpecialTokens()
NEVER_FINITE = (math.nan, math.inf, -math.inf)
# Setting -> values that it refuses.
REFUSED = {
    "temperature": (*NEVER_FINITE, -1, -5e-324),
    "top_p": (*NEVER_FINITE, -0.1, 1.1),
    "top_k": (*NEVER_FINITE, -1, 0, 2.5),
    "min_p": (*NEVER_FINITE, -0.1, 1.1),
    "no_repeat_strength": (*NEVER_FINITE, -1),
    "repetition_penalty": (*NEVER_FINITE, -1, 0),
    "top_repeat_penalty": (*NEVER_FINITE, -0.1),
    "max_new_tokens": (*NEVER_FINITE, -1, 0),
    "seed": (*NEVER_FINITE, -1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_out_of_range_is_refused_by_name_and_value(name, fault):
    for value in REFUSED[name]:
        with pytest.raises(ValueError, match=rf"^{name} is {value!r}: it must ") as caught:
            SamplingConfig(**{name: value})
        assert "\n" not in str(caught.value)
        fault(24)


@pytest.mark.parametrize("temperature", [0.0, 1e-320, 1e-9, 1.0, 1e300])
@pytest.mark.parametrize("strength", [0.0, 1.0, 1e300])
@pytest.mark.parametrize("penalty", [1e-300, 1.0, 1e300])
@pytest.mark.parametrize("decades", [0.0, 1e300])
def test_extreme_settings_leave_a_distribution(temperature, strength, penalty, decades, fault):
    config = SamplingConfig(
        temperature=temperature,
        no_repeat_strength=strength,
        repetition_penalty=penalty,
        top_repeat_penalty=decades,
        top_p=0.9,
    )
    logits = torch.cat([torch.linspace(-40, 40, 29), torch.zeros(1)])
    context_ids = torch.tensor(list(range(30)) * 5)
    ours = next_token_probabilities(logits, context_ids, config, SPECIAL_TOKENS, context_length=64)
    assert ours.isfinite().all()
    assert float(ours.sum()) == pytest.approx(1)
    assert draw(ours, torch.Generator().manual_seed(0)) not in SPECIAL_TOKENS.never_produced
    fault(24)


CONTEXT_LENGTH = 16
LENGTHS = (0, 1, 2, 15, 16, 17, 31, 32, 33, 64, 160, 1_600)
SETTINGS = {
    "greedy": SamplingConfig(temperature=0.0),
    "sampled": SamplingConfig(),
    "cold": SamplingConfig(temperature=1e-300, top_p=0.0),
    "hot": SamplingConfig(temperature=1e300, min_p=1.0, top_k=10**12),
    "penalised": SamplingConfig(no_repeat_strength=1e300, repetition_penalty=1e300),
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    shape = {"embedding_dim": 16, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "ffn_dim": 8}
    config = ModelConfig(
        vocab_size=60, context_length=CONTEXT_LENGTH, window_size=5, init_std=0.3, **shape
    )
    return Transformer(config).eval()


@pytest.mark.slow
@pytest.mark.parametrize("beyond", ["crop", "run_on"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_prompt_of_any_length_counts_with_its_last_tokens(model, settings, beyond, fault):
    chance = random.Random(0)
    config = replace(settings, max_new_tokens=4, seed=5, beyond_context=beyond)
    for length in LENGTHS:
        prompt = [chance.randrange(10, 60) for _ in range(length)]
        ids, last_ids = (
            list(generate_ids(model, each, config, special_tokens=SPECIAL_TOKENS))
            for each in (prompt, prompt[-CONTEXT_LENGTH:] or [SPECIAL_TOKENS.start_of_text])
        )
        assert ids == last_ids
        assert 1 <= len(ids) <= 4
        assert set(ids) <= set(range(60)) - set(SPECIAL_TOKENS.never_produced)
        fault(24)
