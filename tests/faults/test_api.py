"""The API against large requests, foreign names, and clients that are many or go away."""

import asyncio
import gc
import random
import tracemalloc

import pytest
from served import SAMPLING, post, serving

openai = pytest.importorskip("openai", reason="openai is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

from dimgpt.generation.continuation import Continuation  # noqa: E402
from dimgpt.serving.api import create_app  # noqa: E402


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("/v1/completions", {"prompt": "a" * 10_000_000}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a" * 10_000_000}]}),
    ],
    ids=["completion", "chat"],
)
def test_a_prompt_of_ten_megabytes_is_refused(address, path, change, fault):
    status, error = post(address, path, {"model": "toy", **change})
    assert status == 413
    assert "more than 4,000,000 bytes" in error["error"]["message"]
    fault(25)


def test_a_foreign_host_is_refused(address, fault):
    body = {"model": "toy", "prompt": "le", "max_tokens": 1}
    assert post(address, "/v1/completions", body, Host="evil.example")[0] == 400
    assert post(address, "/v1/completions", body, Host="localhost:1")[0] == 200
    fault(25)


@pytest.mark.slow
def test_a_client_that_goes_away_frees_its_place(model, tokenizer, slow_steps, fault):
    app = create_app("toy", model, tokenizer, SAMPLING, max_batch=1)
    with serving(app) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none")
        endless = {"model": "toy", "prompt": "le", "max_tokens": 5_000, "seed": 1}
        with client.completions.create(**endless, stream=True) as stream:
            next(iter(stream))
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.3, max_retries=0).completions.create(**endless)
        client.completions.create(model="toy", prompt="la", max_tokens=3)
    assert len(slow_steps) < 60
    fault(25, 2)


@pytest.mark.slow
def test_more_texts_than_may_wait_are_refused(model, tokenizer, fault):
    with serving(create_app("toy", model, tokenizer, SAMPLING, max_batch=1)) as address:
        body = {"model": "toy", "prompt": ["le"] * 64, "n": 64}
        status, error = post(address, "/v1/completions", body)
        assert (status, error["error"]["code"]) == (429, "rate_limit_exceeded")
    fault(25)


def num_texts():
    """Count the texts that the engine, or whoever asked for them, still holds."""
    gc.collect()
    return sum(type(each) is Continuation for each in gc.get_objects())


@pytest.mark.slow
def test_fifty_clients_a_third_of_whom_go_away_get_no_mixed_answers(address, written, fault):
    """Greedy: a draw may fall on the other side of a border that differs in its last digit."""
    chance, client = random.Random(1), openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none")
    prompts = [f"{noun} {number}" for noun in ("le", "la lune", "une fois") for number in range(5)]
    expected = {prompt: written(prompt, temperature=0.0) for prompt in prompts}
    assert len(set(expected.values())) > 10

    async def ask(number):
        prompt = chance.choice(prompts)
        asked = {"model": "toy", "prompt": prompt, "temperature": 0}
        if number % 3 == 0:
            stream = await client.completions.create(**asked, stream=True)
            await anext(aiter(stream))
            await stream.close()
        else:
            answer = await client.completions.create(**asked)
            assert answer.choices[0].text == expected[prompt]
            fault(29)

    async def ask_often():
        sizes = []
        for _ in range(5):
            await asyncio.gather(*map(ask, range(50)))
            while num_texts() > 8:  # the engine's thread may hold those of its last step
                await asyncio.sleep(0.01)
            sizes.append(tracemalloc.get_traced_memory()[0])
        return sizes

    tracemalloc.start()
    try:
        _, after_two, *_, after_all = asyncio.run(asyncio.wait_for(ask_often(), 60))
    finally:
        tracemalloc.stop()
    assert after_all - after_two < 500_000
