"""The verb `serve`, as a process."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from dimgpt.cli import main
from dimgpt.weights.store import save_model

pytest.importorskip("uvicorn", reason="uvicorn is not installed")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from dimgpt.config import ModelConfig
    from dimgpt.model.transformer import Transformer
    from dimgpt.text.greedy_tokenizer import GreedyTokenizer

    tokenizer = GreedyTokenizer.load(ROOT / "tests/fixtures/dimensiongpt_sampling/vocab_512.txt")
    shape = {"embedding_dim": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "ffn_dim": 8}
    folder = tmp_path_factory.mktemp("serve") / "petit"
    save_model(Transformer(ModelConfig(vocab_size=512, **shape)), folder, tokenizer)
    return folder


@pytest.mark.slow
def test_a_model_folder_is_served_until_ctrl_c(folder):
    command = [sys.executable, "-m", "dimgpt", "serve", "--model", str(folder), "--port", "0"]
    environment = {**os.environ, "DIMGPT_API_KEY": "secret"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **options) as process:
        line = process.stdout.readline()
        address = re.fullmatch(r"petit is at (http://127.0.0.1:\d+/v1); Ctrl-C ends\n", line)[1]
        request = urllib.request.Request(f"{address}/completions")
        request.add_header("Authorization", "Bearer secret")
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps({"model": "petit", "prompt": "le", "max_tokens": 4}).encode()
        with urllib.request.urlopen(request) as response:
            assert json.load(response)["usage"]["completion_tokens"] <= 4
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=20)
    assert "Traceback" not in complaint
    assert process.returncode == 130


def test_a_port_that_is_taken_is_named(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"cannot listen at 127.0.0.1:{port} .* --port"):
            main(["serve", "--model", str(folder), "--port", str(port)])


def test_a_missing_package_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit, match="uvicorn is not installed: run pip install 'fastapi>="):
        main(["serve", "--model", str(folder)])
