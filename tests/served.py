"""A toy model behind a server on the loopback interface, for the tests of `dimgpt.serving`.

`conftest.py` of `serving/` and of `faults/` import the fixtures.
"""

import contextlib
import http.client
import json
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dimgpt.config import ModelConfig, SamplingConfig
from dimgpt.generation import engine as engines
from dimgpt.generation.generator import generate_ids, stream_text
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.weights.originals import load_original

FIXTURES = Path(__file__).parent / "fixtures"
SAMPLING = SamplingConfig(temperature=1.0, max_new_tokens=12)


@contextlib.contextmanager
def serving(app):
    """Serve an application on the loopback interface, and give its address."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def post(address, path, body, **headers):
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, content, {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    content = response.read()
    is_json = response.headers["content-type"] == "application/json"
    return response.status, json.loads(content) if is_json else content.decode()


@pytest.fixture(scope="session")
def model():
    config = ModelConfig(
        vocab_size=512,
        context_length=64,
        window_size=16,
        embedding_dim=64,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        ffn_dim=170,
    )
    return load_original(FIXTURES / "dimensiongpt" / "tiny.pt", config).model.eval()


@pytest.fixture(scope="session")
def tokenizer():
    return GreedyTokenizer.load(FIXTURES / "dimensiongpt_sampling" / "vocab_512.txt")


@pytest.fixture(scope="module")
def address(model, tokenizer):
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    from dimgpt.serving.api import create_app

    with serving(create_app("toy", model, tokenizer, SAMPLING, max_batch=8)) as address:
        yield address


@pytest.fixture(scope="module")
def written(model, tokenizer):
    """Return what our own generator writes."""

    def write(prompt, *, stops=(), **settings):
        config = replace(SAMPLING, beyond_context="run_on", **settings)
        special = tokenizer.special_tokens
        ids = prompt if isinstance(prompt, list) else tokenizer.encode_beginning(prompt)
        new = generate_ids(model, ids, config, special_tokens=special, stops=stops)
        return "".join(stream_text(new, tokenizer, config.stop_strings))

    return write


@pytest.fixture
def slow_steps(monkeypatch):
    """Let each step of the engine take a while; return a list that grows by one a step."""
    steps, original = [], engines._last_logits

    def slow(*arguments):
        steps.append(1)
        time.sleep(0.05)
        return original(*arguments)

    monkeypatch.setattr(engines, "_last_logits", slow)
    return steps
