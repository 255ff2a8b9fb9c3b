import random
from dataclasses import replace

import pytest
import torch

from dimgpt.config import ModelConfig, SamplingConfig
from dimgpt.generation import compiled_step
from dimgpt.generation import engine as module
from dimgpt.generation.engine import Engine
from dimgpt.generation.generator import generate_ids
from dimgpt.model.transformer import Transformer
from dimgpt.text.special_tokens import SpecialTokens

SPECIAL_TOKENS = SpecialTokens()
CONTEXT_LENGTH = 32
TOY = ModelConfig(
    vocab_size=60,
    context_length=CONTEXT_LENGTH,
    window_size=5,
    embedding_dim=16,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    ffn_dim=24,
    init_std=0.3,
)
SAMPLED = SamplingConfig(temperature=1.5, max_new_tokens=12, seed=5)
SHAPES = {
    "windows": {},
    "whole": {"window_size": None},
    "mixed": {"attention_pattern": ("window", "full")},
    "waves": {"positions": "sinusoidal"},
}


def model_of(**changes):
    torch.manual_seed(0)
    return Transformer(replace(TOY, **changes)).eval()


def engine_of(model, num_rows, **options):
    return Engine(model, SPECIAL_TOKENS, cache=model.new_cache(num_rows, **options))


def alone(model, prompt, config):
    return list(generate_ids(model, prompt, config, special_tokens=SPECIAL_TOKENS))


def new_ids(continuation, prompt):
    return continuation.ids[max(1, min(len(prompt), CONTEXT_LENGTH)) :]


@pytest.mark.slow
@pytest.mark.parametrize("beyond", ["crop", "run_on"])
@pytest.mark.parametrize("name", SHAPES)
def test_texts_that_come_and_go_are_what_each_is_alone(name, beyond):
    model = model_of(**SHAPES[name])
    if beyond == "run_on" and not model.config.can_run_on:
        return
    engine = engine_of(model, 3, runs_on=beyond == "run_on")
    chance, running = random.Random(7), []
    for number in range(12):
        prompt = [chance.randrange(10, 60) for _ in range(chance.choice([0, 1, 4, 9, 31, 40]))]
        config = replace(
            SAMPLED,
            max_new_tokens=chance.choice([1, 7, 40]),
            temperature=chance.choice([0.0, 1.5]),
            repetition_penalty=chance.choice([1.0, 1.3]),
            beyond_context=beyond,
            seed=number,
        )
        running.append((prompt, config, engine.add(prompt, config)))
        for _ in range(chance.randrange(4)):
            engine.step()
    while not engine.is_idle:
        engine.step()
    for prompt, config, continuation in running:
        assert new_ids(continuation, prompt) == alone(model, prompt, config)
        is_full = len(new_ids(continuation, prompt)) == config.max_new_tokens
        assert continuation.end == ("length" if is_full else "stop")


@pytest.mark.slow
def test_a_text_that_is_removed_makes_room_and_changes_no_other():
    model = model_of()
    engine = engine_of(model, 2)
    config = replace(SAMPLED, max_new_tokens=20)
    first, second, third = (engine.add([20, 21 + number], config) for number in range(3))
    engine.step()
    assert len(third.ids) == 2  # it waits
    engine.remove(first)
    engine.remove(first)  # twice is once
    engine.step()
    assert (first.end, len(first.ids), len(third.ids)) == ("removed", 3, 3)
    waiting = engine.add([50], config)
    engine.remove(waiting)
    while not engine.is_idle:
        assert waiting not in engine.step()
    assert new_ids(second, [0, 0]) == alone(model, [20, 22], config)
    assert new_ids(third, [0, 0]) == alone(model, [20, 23], config)


@pytest.mark.slow
def test_no_more_texts_are_written_at_a_time_than_there_are_rows(monkeypatch):
    model, sizes, original = model_of(window_size=None), [], module._last_logits

    def spy(model, ids, cache):
        sizes.append(len(ids))
        return original(model, ids, cache)

    monkeypatch.setattr(module, "_last_logits", spy)
    engine = engine_of(model, 3)
    for number in range(10):  # they get longer than the context, too
        engine.add([20 + number], replace(SAMPLED, max_new_tokens=40))
    while not engine.is_idle:
        sizes.clear()
        engine.step()
        assert sum(sizes) <= 3


def test_texts_share_a_pass_whatever_their_lengths(monkeypatch):
    engine = engine_of(model_of(), 4)
    for length in (1, 3, 7, 20):
        engine.add([20] * length, replace(SAMPLED, temperature=0.0, max_new_tokens=5))
    engine.step()
    sizes, original = [], module._last_logits

    def spy(model, ids, cache):
        sizes.append(tuple(ids.shape))
        return original(model, ids, cache)

    monkeypatch.setattr(module, "_last_logits", spy)
    engine.step()
    assert sizes == [(4, 1)]


def test_scores_are_the_models_own_whatever_the_settings():
    model, prompt = model_of(), [20, 30, 40]
    config = replace(SAMPLED, temperature=0.5, top_k=3, repetition_penalty=2.0)
    engine = engine_of(model, 2)
    engine.add([50], config)
    scored = engine.add(prompt, config, num_scored=4)
    while not engine.is_idle:
        engine.step()
    with torch.inference_mode():
        logits = model(torch.tensor([scored.ids]))[0]
    expected = logits.log_softmax(dim=-1)
    written = scored.ids[len(prompt) :] + [SPECIAL_TOKENS.end_of_text] * (scored.end == "stop")
    assert len(scored.scores) == len(written)
    for place, (id, score) in enumerate(zip(written, scored.scores, strict=True), start=2):
        assert score.log_probability == pytest.approx(float(expected[place, id]), abs=1e-4)
        best = expected[place].topk(4)
        assert list(score.alternatives) == best.indices.tolist()
        assert list(score.alternatives.values()) == pytest.approx(best.values.tolist(), abs=1e-4)


def test_a_step_without_texts_does_nothing():
    engine = engine_of(model_of(), 2)
    assert engine.is_idle
    assert engine.step() == []


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", ["windows", "mixed"])
def test_a_recorded_step_changes_no_token(name):
    model = model_of(num_layers=2, **SHAPES[name]).cuda()
    beyond = "run_on" if model.config.can_run_on else "crop"
    config = replace(SAMPLED, beyond_context=beyond)
    prompts = [[20], [21] * 30, [22, 23], [24] * 9, [25], [26]]  # those of one token take a step
    written = []
    for use_compile in (False, True):
        engine = engine_of(model, 4, runs_on=model.config.can_run_on, use_compile=use_compile)
        added = [engine.add(prompt, config, number=number) for number, prompt in enumerate(prompts)]
        while not engine.is_idle:
            engine.step()
        written.append([continuation.ids for continuation in added])
        assert bool(engine._cache.graphs) == use_compile
    assert written[0] == written[1]


def test_steps_are_compiled_for_rows_from_the_first_on_and_once_a_step(monkeypatch):
    model = model_of(num_layers=2, **SHAPES["windows"])
    engine, calls = engine_of(model, 4, use_compile=True), []
    first_row = engine._cache._layers[0].data_ptr()

    def take(model, ids, cache):
        calls.append(cache._layers[0].data_ptr() == first_row)
        logits = compiled_step.last_logits(model, ids, cache)
        cache.advance(1)
        return logits

    monkeypatch.setattr(module, "logits_of_step", take)
    for id in range(20, 24):  # a prompt of one token is as long as a step
        engine.add([id], SAMPLED)
        before = len(calls)
        engine.step()
        assert calls[before:] == [True]


@pytest.mark.slow
@torch.inference_mode()
def test_a_renewed_view_gives_the_next_step_and_is_not_compiled_again():
    from torch._dynamo.testing import CompileCounter  # it takes a second

    torch.compiler.reset()
    counter = CompileCounter()
    step = torch.compile(compiled_step.last_logits, backend=counter)
    model = model_of(num_layers=2, **SHAPES["windows"])
    cache, plain = (model.new_cache(1) for _ in range(2))
    view = cache.for_one_step()
    for id in range(20, 30):
        ids = torch.tensor([[id]])
        cache.renew_step(view)
        logits = step(model, ids, view)
        cache.advance(1)
        torch.testing.assert_close(logits, compiled_step.last_logits(model, ids, plain))
    assert counter.frame_count == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["windows", "mixed"])
def test_a_compiled_step_serves_all_lengths_and_changes_no_token(name, monkeypatch):
    from torch._dynamo.testing import CompileCounter  # it takes a second

    compile_, counter = torch.compile, CompileCounter()
    monkeypatch.setattr(torch, "compile", lambda step, **_: compile_(step, backend=counter))
    compiled_step._compiled.cache_clear()
    torch.compiler.reset()
    model = model_of(num_layers=2, **SHAPES[name])
    engine = engine_of(model, 4, runs_on=model.config.can_run_on, use_compile=True)
    beyond = "run_on" if model.config.can_run_on else "crop"
    config, prompts = replace(SAMPLED, beyond_context=beyond), [[20], [21] * 30, [22, 23], [24] * 9]
    added = [engine.add(prompt, config, number=number) for number, prompt in enumerate(prompts)]
    while not engine.is_idle:
        engine.step()
    compiled_step._compiled.cache_clear()
    assert 1 <= counter.frame_count <= 3  # one row, several, beyond the context
    for number, (continuation, prompt) in enumerate(zip(added, prompts, strict=True)):
        expected = alone(model, prompt, replace(config, seed=config.seed + number))
        assert new_ids(continuation, prompt) == expected


BAD = SPECIAL_TOKENS.padding  # an id that is never produced, whose vector is damaged here


def spoil(_, inputs, vectors):
    return vectors.masked_fill((inputs[0] == BAD)[..., None], torch.nan)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_a_text_that_fails_ends_alone_and_its_row_serves_others(name):
    model = model_of(**SHAPES[name])
    model.token_embedding.register_forward_hook(spoil)
    engine, errors = engine_of(model, 3), []
    # The last of three rows fails, and [23] takes it while a longer text is written.
    prompts = [[20, 21] * 6, [30], [BAD] * 9, [23], [20, BAD], [20, 22], [24] * 9]
    added = [engine.add(prompt, SAMPLED, number=number) for number, prompt in enumerate(prompts)]
    while not engine.is_idle:
        engine.step(lambda *pair: errors.append(pair))
    for number, (prompt, text) in enumerate(zip(prompts, added, strict=True)):
        if BAD in prompt:
            assert (text.end, text.ids) == ("failed", prompt)
        else:
            expected = alone(model, prompt, replace(SAMPLED, seed=SAMPLED.seed + number))
            assert text.ids[len(prompt) :] == expected
    assert [text for text, _ in errors] == [added[2], added[4]]
    assert all("largest logit is nan" in str(error) for _, error in errors)


def test_without_a_function_for_errors_a_step_raises_them():
    model = model_of()
    model.token_embedding.register_forward_hook(spoil)
    engine = engine_of(model, 2)
    good, bad = engine.add([20], SAMPLED), engine.add([BAD], SAMPLED)
    with pytest.raises(ValueError, match="largest logit is nan"):
        engine.step()
    assert (good.end, bad.end) == (None, None)
