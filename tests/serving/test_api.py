import re

import pytest
import torch
from served import SAMPLING, post, serving

openai = pytest.importorskip("openai", reason="openai is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from dimgpt.data.conversation import Message, encode_prompt  # noqa: E402
from dimgpt.generation import engine as engines  # noqa: E402
from dimgpt.generation.scores import score_tokens  # noqa: E402
from dimgpt.serving.api import create_app  # noqa: E402

QUESTION = [{"role": "system", "content": "Sois bref."}, {"role": "user", "content": "Bonjour"}]


@pytest.fixture(scope="module")
def client(address):
    return openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


@pytest.mark.slow
def test_the_model_is_listed(client):
    assert [model.id for model in client.models.list()] == ["toy"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "settings"),
    [
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"seed": 3}, {"seed": 3}),
        (
            {"seed": 3, "top_p": 0.5, "max_tokens": 30},
            {"seed": 3, "top_p": 0.5, "max_new_tokens": 30},
        ),
        ({"seed": 4, "max_tokens": 100}, {"seed": 4, "max_new_tokens": 100}),
        (
            {"seed": 5, "extra_body": {"top_k": 3, "repetition_penalty": 1.5}},
            {"seed": 5, "top_k": 3, "repetition_penalty": 1.5},
        ),
    ],
    ids=str,
)
def test_a_completion_is_what_our_own_generator_writes(client, written, asked, settings):
    answer = client.completions.create(model="toy", prompt="Il était", **asked)
    assert answer.choices[0].text == written("Il était", **settings)
    pieces = list(client.completions.create(model="toy", prompt="Il était", stream=True, **asked))
    assert "".join(piece.choices[0].text for piece in pieces) == answer.choices[0].text
    assert pieces[-1].choices[0].finish_reason == answer.choices[0].finish_reason
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.slow
def test_a_chat_ends_where_the_chat_format_says(client, written, tokenizer):
    messages = [Message(role=row["role"], text=row["content"]) for row in QUESTION]
    prompt = encode_prompt(messages, tokenizer)
    expected = written(prompt, seed=1, stops=tokenizer.chat.stops)
    answer = client.chat.completions.create(model="toy", messages=QUESTION, seed=1)
    assert answer.choices[0].message.content == expected
    assert answer.usage.prompt_tokens == len(prompt)
    parts = [{"type": "text", "text": part} for part in ("Bon", "jour")]
    again = [QUESTION[0] | {"role": "developer"}, {"role": "user", "content": parts}]
    chunks = client.chat.completions.create(
        model="toy", messages=again, seed=1, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = chunks
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == expected
    assert chunks[0].choices[0].delta.role == "assistant"
    assert (last.choices, last.usage) == ([], answer.usage)


@pytest.mark.slow
def test_several_prompts_and_choices_have_seeds_of_their_own(client, written):
    answer = client.completions.create(model="toy", prompt=["le", "la lune"], n=2, seed=7)
    prompts = ["le", "le", "la lune", "la lune"]
    assert [choice.text for choice in answer.choices] == [
        written(prompt, seed=7 + number) for number, prompt in enumerate(prompts)
    ]
    stream = client.completions.create(
        model="toy", prompt=["le", "la lune"], n=2, seed=7, stream=True
    )
    texts = [""] * 4
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in answer.choices]


def test_a_stop_string_ends_a_text(client, written):
    whole = written("le", seed=2, max_new_tokens=40)
    stop = whole[len(whole) // 2 :][:3]
    answer = client.completions.create(
        model="toy", prompt="le", seed=2, max_tokens=40, stop=["absent", stop]
    )
    assert answer.choices[0].text == whole[: whole.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens < 40


def test_an_echo_scores_the_prompt(client, model, tokenizer):
    ids = tokenizer.encode_beginning("la lune et le soleil")
    for prompt in ("la lune et le soleil", ids):
        answer = client.completions.create(
            model="toy", prompt=prompt, max_tokens=1, echo=True, logprobs=2, temperature=0
        )
        [choice] = answer.choices
        expected = score_tokens(model, ids, 2)
        first = len(ids) - len(choice.logprobs.tokens[:-1])
        values = choice.logprobs.token_logprobs[:-1]
        assert first == (1 if isinstance(prompt, str) else 0)
        if not first:
            assert values.pop(0) is None
        assert values == pytest.approx([score.log_probability for score in expected])
        for row, score in zip(choice.logprobs.top_logprobs[1 - first : -1], expected, strict=True):
            assert max(row.values()) == pytest.approx(max(score.alternatives.values()))
    nothing = client.completions.create(
        model="toy", prompt=ids, max_tokens=0, echo=True, logprobs=1
    )
    assert len(nothing.choices[0].logprobs.tokens) == len(ids)
    assert nothing.usage.completion_tokens == 0


def test_a_chat_gives_log_probabilities(client, tokenizer):
    answer = client.chat.completions.create(
        model="toy", messages=QUESTION, temperature=0, logprobs=True, top_logprobs=3
    )
    tokens = answer.choices[0].logprobs.content
    text = b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace")
    assert text == answer.choices[0].message.content
    assert all(token.logprob == token.top_logprobs[0].logprob for token in tokens)
    assert all(len(token.top_logprobs) == 3 for token in tokens)


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"model": "toys"}, 404, r"no model 'toys' \(did you mean 'toy'\?\)"),
        ({"temperature": -1}, 400, "temperature is -1.0: it must be 0 or more"),
        ({"temperature": "hot"}, 400, "temperature: "),
        ({"top_p": 2}, 400, "top_p is 2.0: it must lie in 0..1"),
        ({"stop": ""}, 400, "stop_strings holds ''"),
        ({"prompt": [512]}, 400, "id 512 at position 0: ids are 0 to 511"),
        ({"prompt": "a " * 100}, 400, "context of the model 64: shorten it"),
        ({"max_tokens": -1}, 400, "max_tokens: "),
        ({"max_tokens": 10**9}, 400, "max_tokens: "),
        ({"n": 1000}, 400, "n: "),
        ({"prompt": ["a"] * 65}, 400, "prompt"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias: "),
        ({"frequency_penalty": 1}, 400, "frequency_penalty: "),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_request_is_refused_with_field_and_value(address, change, status, message):
    body = {"model": "toy", "prompt": "le", **change}
    answer, error = post(address, "/v1/completions", body)
    assert answer == status
    assert re.search(message, error["error"]["message"])
    assert "\n" not in error["error"]["message"]


def test_what_is_no_request_is_refused(address):
    assert post(address, "/v1/completions", b"{")[0] == 400
    assert post(address, "/v1/completions", [])[0] == 400
    assert post(address, "/v1/nothing", {})[0] == 404
    assert post(address, "/v1/chat/completions", {"model": "toy", "messages": []})[0] == 400
    wrong = {"model": "toy", "messages": [{"role": "tool", "content": "a"}]}
    assert post(address, "/v1/chat/completions", wrong)[0] == 400


def test_half_a_surrogate_pair_is_answered_in_json(address):
    for change, status in (
        ({"model": "\ud800"}, 404),
        ({"\ud800": 1}, 400),
        ({"prompt": "\ud800"}, 200),
    ):
        body = {"model": "toy", "prompt": "le", "echo": True, **change}
        assert post(address, "/v1/completions", body)[0] == status


def test_special_tokens_that_a_client_types_stay_text(client, tokenizer):
    text = "".join(tokenizer.special_ids)
    answer = client.completions.create(
        model="toy", prompt=text, max_tokens=0, echo=True, logprobs=0
    )
    special = {tokenizer.token_text(id) for id in tokenizer.special_ids.values()} - {""}
    assert not special & set(answer.choices[0].logprobs.tokens)


@pytest.mark.slow
def test_a_key_is_asked_for_where_one_is_set(model, tokenizer):
    with serving(create_app("toy", model, tokenizer, SAMPLING, api_key="sésame")) as address:
        for key in ("none", "", "sesame"):
            wrong = {"Authorization": f"Bearer {key}"}
            assert post(address, "/tokenize", {"prompt": "a"}, **wrong)[0] == 401
        right = "sésame".encode().decode("latin-1")
        assert (
            post(address, "/tokenize", {"prompt": "a"}, Authorization=f"Bearer {right}")[0] == 200
        )


@pytest.mark.slow
def test_damaged_weights_are_an_error_and_the_server_goes_on(model, tokenizer, monkeypatch):
    original = engines._last_logits
    with serving(create_app("toy", model, tokenizer, SAMPLING)) as address:
        body = {"model": "toy", "prompt": "le", "max_tokens": 3}
        monkeypatch.setattr(engines, "_last_logits", lambda *all: original(*all) * torch.nan)
        status, error = post(address, "/v1/completions", body)
        assert status == 500
        assert "the model's largest logit is nan" in error["error"]["message"]
        assert (
            "largest logit is nan" in post(address, "/v1/completions", body | {"stream": True})[1]
        )
        monkeypatch.setattr(engines, "_last_logits", original)
        assert post(address, "/v1/completions", body)[0] == 200


@pytest.mark.slow
def test_a_text_that_fails_ends_only_its_own_request(model, written, client, address, slow_steps):
    padding = 1
    expected = written("le", temperature=0.0, max_new_tokens=16)
    slow_steps.clear()

    def spoil(_, inputs, vectors):
        return vectors.masked_fill((inputs[0] == padding)[..., None], torch.nan)

    with (
        model.token_embedding.register_forward_hook(spoil),
        client.completions.create(
            model="toy", prompt="le", temperature=0, max_tokens=16, stream=True
        ) as stream,
    ):
        text = next(iter(stream)).choices[0].text
        body = {"model": "toy", "prompt": [20, padding], "temperature": 0}
        status, error = post(address, "/v1/completions", body)
        assert len(slow_steps) < 16  # the other one is still being written
        text += "".join(chunk.choices[0].text for chunk in stream)
    assert (status, text) == (500, expected)
    assert "cannot write: the model's largest logit is nan" in error["error"]["message"]


@pytest.mark.slow
def test_the_tokenizer_can_be_asked(address, tokenizer):
    _, named = post(address, "/tokenize", {"prompt": "la lune", "add_special_tokens": False})
    assert named["tokens"] == tokenizer.encode("la lune")
    _, back = post(address, "/detokenize", {"tokens": named["tokens"]})
    assert back["prompt"] == "la lune"
    end = tokenizer.tokens[tokenizer.special_tokens.end_of_text]
    _, ids = post(address, "/tokenize", {"prompt": end})
    assert ids["tokens"] == [tokenizer.special_tokens.end_of_text]


@pytest.mark.slow
def test_lm_eval_measures_a_model_through_the_api(address, model, tokenizer):
    """`local-completions`, as `lm_eval` drives it: log-probabilities of endings of texts."""
    pytest.importorskip("lm_eval", reason="lm_eval is not installed")
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    peer = LocalCompletionsAPI(
        base_url=f"{address}/v1/completions", model="toy", max_length=63, tokenizer_backend="auto"
    )
    pairs = [("la lune", " et le soleil"), ("Il était", " une fois"), ("", "bonjour le lac")]
    asked = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=number)
        for number, pair in enumerate(pairs)
    ]
    for (context, ending), (found, _) in zip(pairs, peer.loglikelihood(asked), strict=True):
        ids = tokenizer.encode(context + ending)
        begin = len(tokenizer.encode(context))
        scores = score_tokens(model, ids if context else [2, *ids], 1)
        kept = scores[begin - 1 :] if context else scores
        assert found == pytest.approx(sum(score.log_probability for score in kept), abs=1e-3)
