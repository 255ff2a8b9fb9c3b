"""Greedy text with toyGPT's penalty, from its own checkpoint."""

import itertools
import json
from pathlib import Path

import pytest
import torch

from dimgpt.config import SamplingConfig
from dimgpt.generation import engine
from dimgpt.generation.generator import generate_batch, generate_ids
from dimgpt.model.transformer import Transformer
from dimgpt.presets import PRESETS
from dimgpt.settings import override
from dimgpt.text.special_tokens import SpecialTokens
from dimgpt.weights.originals import load_original

FIXTURES = Path(__file__).parents[1] / "fixtures" / "toygpt"
INFO = json.loads((FIXTURES / "info.json").read_text())
PROMPT, PENALTY, EXPECTED = (INFO["generate"][name] for name in ("prompt", "repeat_penalty", "out"))
# Its small vocabulary has no special tokens, and it never takes the last token.
NAMES = ("unknown", "padding", "start_of_text", "human", "system", "user", "assistant")
SPECIAL_TOKENS = SpecialTokens(**dict.fromkeys(NAMES), end_of_text=511)
SAMPLING = override(PRESETS["toygpt-small"].sampling, max_new_tokens=len(EXPECTED))


@pytest.fixture(scope="module")
def model() -> Transformer:
    sizes = {"num_heads": 4, "context_length": 64}
    return load_original(FIXTURES / "state_dict.pt", sizes=sizes).model


def written_by_rule(model: Transformer, prompt: list[int], decades: float, num: int) -> list[int]:
    """Continue a prompt as toyGPT does: on probabilities, without a cache."""
    ids = list(prompt)
    for _ in range(num):
        with torch.no_grad():
            probabilities = model(torch.tensor([ids[-model.config.context_length :]]))[0, -1]
        probabilities = probabilities.softmax(dim=-1)
        top = int(probabilities.argmax())
        if top in ids:
            probabilities[top] *= 10**-decades
        ids.append(int(probabilities.argmax()))
    return ids[len(prompt) :]


def written(model: Transformer, prompt: list[int], config: SamplingConfig) -> list[int]:
    return list(generate_ids(model, prompt, config, special_tokens=SPECIAL_TOKENS))


def test_the_text_of_toygpts_checkpoint_is_the_originals(model: Transformer) -> None:
    assert SAMPLING.top_repeat_penalty == PENALTY
    assert written_by_rule(model, PROMPT, PENALTY, len(EXPECTED)) == EXPECTED
    assert written(model, PROMPT, SAMPLING) == EXPECTED


@pytest.mark.slow
def test_without_the_penalty_it_is_another_text(model: Transformer) -> None:
    plain = override(SAMPLING, top_repeat_penalty=0.0)
    assert written(model, PROMPT, plain) == written_by_rule(model, PROMPT, 0.0, len(EXPECTED))
    assert written(model, PROMPT, plain) != EXPECTED


@pytest.mark.slow
def test_beyond_the_context_the_text_follows_the_rule_too_alone_and_in_a_batch(
    model: Transformer,
) -> None:
    config, prompts = override(SAMPLING, max_new_tokens=80), [PROMPT, PROMPT[:3]]
    expected = [written_by_rule(model, prompt, PENALTY, 80) for prompt in prompts]
    assert written(model, PROMPT, config) == expected[0]
    assert generate_batch(model, prompts, config, special_tokens=SPECIAL_TOKENS) == expected


def test_the_penalty_remembers_what_the_context_has_lost(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = itertools.count()

    def logits_of(_: Transformer, so_far: torch.Tensor, cache: object) -> torch.Tensor:
        assert so_far.shape[1] <= model.config.context_length
        step, logits = next(steps), torch.zeros(1, model.config.vocab_size)
        logits[:, 40 if step in (0, 100) else 200 + step] = 9.0
        logits[:, 41] = 8.0
        return logits

    monkeypatch.setattr(engine, "_last_logits", logits_of)
    ids = written(model, PROMPT, override(SAMPLING, max_new_tokens=101))
    assert ids[:2] == [40, 201]
    assert ids[99:] == [299, 41]
