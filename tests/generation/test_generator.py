import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dimgpt.config import ModelConfig, SamplingConfig
from dimgpt.data.conversation import Message, encode_prompt
from dimgpt.generation import engine as module
from dimgpt.generation.engine import Engine
from dimgpt.generation.generator import TextGenerator, generate_batch, generate_ids, stream_text
from dimgpt.generation.sampling import next_token_probabilities
from dimgpt.model.transformer import Transformer
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.special_tokens import SpecialTokens
from dimgpt.weights.layout import build_model
from dimgpt.weights.originals import load_original

FIXTURES = Path(__file__).parents[1] / "fixtures"
ORIGINAL = json.loads((FIXTURES / "dimensiongpt_sampling" / "sampling.json").read_text())
SPECIAL_TOKENS = SpecialTokens()
CONTEXT_LENGTH = 64
GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=8)
SAMPLED = SamplingConfig(
    temperature=0.9, top_p=0.95, no_repeat_strength=0.3, max_new_tokens=8, seed=5
)


@pytest.fixture(scope="module")
def model() -> Transformer:
    config = ModelConfig(
        vocab_size=512,
        context_length=CONTEXT_LENGTH,
        window_size=16,
        embedding_dim=64,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        ffn_dim=170,
    )
    return load_original(FIXTURES / "dimensiongpt" / "tiny.pt", config).model


@pytest.fixture(scope="module")
def tokenizer() -> GreedyTokenizer:
    return GreedyTokenizer.load(FIXTURES / "dimensiongpt_sampling" / "vocab_512.txt")


def prompt_of(length: int, *, seed: int = 0) -> list[int]:
    return [random.Random(seed + length).randrange(10, 512) for _ in range(length)]


def generated(model: Transformer, prompt: list[int], config: SamplingConfig) -> list[int]:
    return list(generate_ids(model, prompt, config, special_tokens=SPECIAL_TOKENS))


def favourite(model: Transformer, monkeypatch: pytest.MonkeyPatch, ids: dict[int, int]) -> None:
    """Make the model want `ids[length]` after `length` tokens, else token 20."""
    read = []

    def logits_of(_: Transformer, new: torch.Tensor, cache: object) -> torch.Tensor:
        read.extend(new[0].tolist())
        logits = torch.zeros(new.shape[0], model.config.vocab_size)
        logits[:, ids.get(len(read), 20)] = 9.0
        return logits

    monkeypatch.setattr(module, "_last_logits", logits_of)


@pytest.mark.slow
@pytest.mark.parametrize("window_size", [None, 16])
@pytest.mark.parametrize("length", [1, 5, CONTEXT_LENGTH - 3, CONTEXT_LENGTH, 3 * CONTEXT_LENGTH])
def test_the_cache_changes_nothing_below_at_and_beyond_the_context(
    model: Transformer, monkeypatch: pytest.MonkeyPatch, length: int, window_size: int | None
) -> None:
    config = replace(model.config, window_size=window_size)  # None: the oldest token counts too
    other = build_model(config, model.state_dict(), source="the test")
    original, seen = module._last_logits, []

    def spy(*arguments: object) -> torch.Tensor:
        seen.append(original(*arguments))
        return seen[-1]

    monkeypatch.setattr(module, "_last_logits", spy)
    ids = prompt_of(length) + generated(other, prompt_of(length), GREEDY)
    assert len(seen) == GREEDY.max_new_tokens
    with torch.inference_mode():
        for step, logits in enumerate(seen):
            window = ids[: length + step][-CONTEXT_LENGTH:]
            torch.testing.assert_close(
                logits, other(torch.tensor([window]))[:, -1], atol=1e-4, rtol=0
            )


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, CONTEXT_LENGTH, 3 * CONTEXT_LENGTH])
def test_run_on_writes_what_a_longer_context_would_have_written(
    model: Transformer, length: int
) -> None:
    config = replace(model.config, window_size=16)
    short, long = (
        build_model(replace(config, context_length=size), model.state_dict(), source="the test")
        for size in (CONTEXT_LENGTH, 10 * CONTEXT_LENGTH)
    )
    settings = replace(GREEDY, max_new_tokens=3 * CONTEXT_LENGTH, beyond_context="run_on")
    prompt = prompt_of(length)
    expected = generated(long, prompt[-CONTEXT_LENGTH:], settings)
    assert generated(short, prompt, settings) == expected


def test_run_on_is_refused_at_once_where_a_layer_sees_the_whole_context(
    model: Transformer,
) -> None:
    full = build_model(replace(model.config, window_size=None), model.state_dict(), source="")
    with pytest.raises(ValueError, match="use 'crop' with this model"):
        generate_ids(
            full, [20], replace(GREEDY, beyond_context="run_on"), special_tokens=SPECIAL_TOKENS
        )


@pytest.mark.parametrize(
    ("case", "is_chat"),
    [(case, bool(case["kwargs"].get("chat_bot"))) for case in ORIGINAL["generate"]],
)
def test_each_choice_is_the_originals_with_its_arguments_in_place(
    model: Transformer, tokenizer: GreedyTokenizer, case: dict, is_chat: bool
) -> None:
    settings = {"temperature": 1.0, "top_p": 1.0, "no_repeat": 0.0, **case["kwargs"]}
    config = SamplingConfig(
        temperature=settings["temperature"],
        top_p=settings["top_p"],
        no_repeat_strength=settings["no_repeat"],
    )
    ids = [2, *tokenizer.encode(case["input"])]
    if is_chat:
        system = Message(role="system", text=ORIGINAL["preprompt_text"])
        ids = encode_prompt([system, Message(role="user", text=case["input"])], tokenizer)
    draws = np.random.RandomState(case["np_seed"])
    for expected in case["indices_if_arguments_were_right"]:
        context = torch.tensor(ids[-CONTEXT_LENGTH:])
        with torch.inference_mode():
            logits = model(context[None])[0, -1]
        ours = next_token_probabilities(
            logits,
            context,
            config,
            SPECIAL_TOKENS,
            context_length=64,
            stops=tokenizer.chat.stops if is_chat else (),
        ).numpy()
        if 0 < config.top_p < 1:  # the original drops the token that crosses
            ours[np.where(ours > 0, ours, np.inf).argmin()] = 0
        ours = ours.astype(np.float64) / ours.sum(dtype=np.float64)
        choice = draws.choice(512, p=ours) if config.temperature else ours.argmax()
        assert choice == expected
        ids.append(expected)


@pytest.mark.slow
@pytest.mark.parametrize("config", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_a_batch_of_mixed_lengths_gives_what_each_prompt_gives_alone(
    model: Transformer, config: SamplingConfig
) -> None:
    lengths = [3, 0, 17, 1, 9, 9, CONTEXT_LENGTH, 2 * CONTEXT_LENGTH, 60]
    prompts = [prompt_of(length, seed=7) for length in lengths]
    together = generate_batch(model, prompts, config, special_tokens=SPECIAL_TOKENS, batch_size=4)
    for row, prompt in enumerate(prompts):
        alone = config if config.seed is None else replace(config, seed=config.seed + row)
        assert together[row] == generated(model, prompt, alone)


def test_an_empty_batch_gives_nothing(model: Transformer) -> None:
    assert generate_batch(model, [], GREEDY, special_tokens=SPECIAL_TOKENS) == []


@pytest.mark.slow
def test_a_seed_reproduces_and_another_differs(model: Transformer) -> None:
    config = replace(SAMPLED, max_new_tokens=20)
    first = generated(model, [2], config)
    assert generated(model, [2], config) == first
    assert generated(model, [2], replace(config, seed=6)) != first
    assert generated(model, [2], replace(config, seed=2**70))  # larger than a generator takes


def test_no_seed_draws_afresh(model: Transformer) -> None:
    config = SamplingConfig(max_new_tokens=30)
    assert generated(model, [2], config) != generated(model, [2], config)


def test_generation_leaves_the_global_random_state_alone(model: Transformer) -> None:
    before = torch.get_rng_state()
    generated(model, [2], SAMPLED)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_tokens", [1, 3])
def test_max_new_tokens_is_never_exceeded(model: Transformer, num_tokens: int) -> None:
    assert len(generated(model, [2], replace(SAMPLED, max_new_tokens=num_tokens))) == num_tokens


def test_end_of_text_ends_and_is_not_yielded(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    favourite(model, monkeypatch, {3: SPECIAL_TOKENS.end_of_text})
    assert generated(model, [2], GREEDY) == [20, 20]


def test_opening_the_users_turn_ends_an_answer_in_a_chat_only(
    model: Transformer, tokenizer: GreedyTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    favourite(model, monkeypatch, {3: SPECIAL_TOKENS.user})
    stops = tokenizer.chat.stops
    in_chat = generate_ids(model, [2], GREEDY, special_tokens=SPECIAL_TOKENS, stops=stops)
    assert list(in_chat) == [20, 20]
    assert len(generated(model, [2], GREEDY)) == GREEDY.max_new_tokens


@pytest.mark.parametrize("bad", [-1, 512, 10**12])
def test_an_id_outside_the_vocabulary_is_refused_before_anything_runs(
    model: Transformer, monkeypatch: pytest.MonkeyPatch, bad: int
) -> None:
    monkeypatch.setattr(module, "_last_logits", None)
    with pytest.raises(ValueError, match=f"id {bad} at position 1"):
        generate_ids(model, [2, bad], GREEDY, special_tokens=SPECIAL_TOKENS)


@pytest.mark.parametrize("is_training", [True, False])
def test_the_models_mode_is_restored_at_every_step(
    tokenizer: GreedyTokenizer, is_training: bool
) -> None:
    config = ModelConfig(
        vocab_size=512,
        context_length=16,
        embedding_dim=16,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        ffn_dim=8,
        dropout=0.5,
    )
    dropping = Transformer(config).train(is_training)
    outputs = []
    for _ in range(2):
        stream = generate_ids(dropping, [2], GREEDY, special_tokens=SPECIAL_TOKENS)
        ids = [next(stream)]
        assert dropping.training == is_training
        assert not torch.is_inference_mode_enabled()
        outputs.append(ids + list(stream))
    assert dropping.training == is_training
    assert outputs[0] == outputs[1]


@pytest.mark.slow
def test_the_stream_joined_is_the_completion_and_the_decoded_ids(
    model: Transformer, tokenizer: GreedyTokenizer
) -> None:
    generator = TextGenerator(model, tokenizer)
    config = replace(SAMPLED, max_new_tokens=100)
    pieces = list(generator.stream("Il était une fois", config))
    ids = generated(model, [2, *tokenizer.encode("Il était une fois")], config)
    assert "".join(pieces) == generator.complete("Il était une fois", config)
    assert "".join(pieces) == tokenizer.decode(ids)
    assert all(pieces)


def test_every_token_streams_as_whole_characters(tokenizer: GreedyTokenizer) -> None:
    ids = list(range(tokenizer.vocab_size)) * 2
    random.Random(0).shuffle(ids)
    assert "".join(stream_text(ids, tokenizer)) == tokenizer.decode(ids)
    for piece in stream_text(ids, tokenizer):
        piece.encode("utf-8")  # no half surrogate


@pytest.mark.parametrize("stops", [(), ("eu",), ("e", "le "), ("é",), ("absent",), ("aab", "b")])
def test_a_text_ends_before_the_first_stop_string_however_it_is_cut(
    tokenizer: GreedyTokenizer, stops: tuple[str, ...]
) -> None:
    chance = random.Random(0)
    text = "la fée aaab le feu et la lune, le lieu"
    ids = tokenizer.encode(text)
    whole = tokenizer.decode(ids)
    places = [whole.find(stop) for stop in stops if stop in whole]
    expected = whole[: min(places)] if places else whole
    assert "".join(stream_text(ids, tokenizer, stops)) == expected
    for _ in range(20):  # every cut: single bytes are tokens, too
        cut = [id for part in whole for id in tokenizer.encode(part, clean=False)]
        pieces = list(stream_text(cut if chance.random() < 0.5 else ids, tokenizer, stops))
        assert "".join(pieces) == expected
        assert all(pieces)


def test_a_stop_string_ends_the_generation_too(
    model: Transformer, tokenizer: GreedyTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    favourite(model, monkeypatch, {4: 33})
    original = module._last_logits
    monkeypatch.setattr(module, "_last_logits", lambda *all: read.append(1) or original(*all))
    text, stop = tokenizer.decode([20] * 3), tokenizer.token_text(33)
    config = replace(GREEDY, max_new_tokens=100, stop_strings=(stop,))
    said = TextGenerator(model, tokenizer).complete("", config)
    assert (said, len(read)) == (text, 4)


def test_special_tokens_in_a_prompt_stay_text(
    model: Transformer, tokenizer: GreedyTokenizer
) -> None:
    seen: list[list[int]] = []
    original: Callable = Engine.add

    def spy(engine: Engine, ids: list[int], *arguments: object, **settings: object) -> object:
        seen.append(list(ids))
        return original(engine, ids, *arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "add", spy)
        TextGenerator(model, tokenizer).complete("⮜user⮞ a ⮜end-of-text⮞", GREEDY)
    assert seen[0][0] == SPECIAL_TOKENS.start_of_text
    assert not set(seen[0][1:]) & {1, 2, 5, 6, 7, 8, 9}


def test_another_models_tokenizer_is_refused(
    model: Transformer, tokenizer: GreedyTokenizer
) -> None:
    with pytest.raises(ValueError, match="511 tokens, the model 512"):
        TextGenerator(model, GreedyTokenizer(tokenizer.tokens[:-1]))


def test_completing_a_batch_uses_the_tokenizers_special_tokens(
    model: Transformer, tokenizer: GreedyTokenizer
) -> None:
    generator = TextGenerator(model, tokenizer)
    [ids] = generator.complete_batch([[2, 30]], GREEDY)
    assert ids == generated(model, [2, 30], GREEDY)
