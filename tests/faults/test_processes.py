"""What surrounds a process: its streams, and the compiler that it calls."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TINY = (
    "--model.context-length 32 --model.window-size 8 --model.embedding-dim 16 --model.num-layers 1 "
    "--model.num-heads 2 --model.num-kv-heads 1 --model.ffn-dim 24 --training.max-steps 2 "
    "--training.batch-size 2 --training.warmup-steps 1 --training.validation-batches 1 "
    "--training.precision fp32 --device cpu"
).split()
# Each command in turn, as a process of its own would run it; a process takes seconds to load torch.
RUN_ALL = """
import json, runpy, sys
statuses = []
for words in json.loads(sys.argv.pop()):
    sys.argv = ["dimgpt", *words]
    try:
        runpy.run_module("dimgpt", run_name="__main__", alter_sys=True)
        statuses.append(0)
    except SystemExit as stop:
        statuses.append(stop.code)
open("statuses.json", "w").write(json.dumps(statuses))
"""


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "texts").mkdir()
    for number in range(60):
        text = (
            f"Le chat numéro {number} dort dans la cour, puis il mange et part vers la ville. " * 3
        )
        (tmp_path / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    return tmp_path


def run(folder, commands, redirections="", **environment):
    command = [sys.executable, "-c", RUN_ALL, json.dumps(commands)]
    done = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirections}', "sh", *command],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return json.loads((folder / "statuses.json").read_text()), done.stdout + done.stderr


PREPARE = ["prepare", "--name", "mine", "--sources", "texts", "--data.vocab-size", "300"]
PREPARE += ["--data.num-workers", "1"]


@pytest.mark.parametrize("closed", ["<&- >&-", "2>&-"], ids=["input and output", "errors"])
def test_without_standard_streams_the_work_is_done(texts, closed, fault):
    commands = [
        PREPARE,
        ["train", "--name", "mine", *TINY],
        ["evaluate", "--name", "mine"],
        ["generate", "--model", "models/mine", "--sampling.max-new-tokens", "3"],
    ]
    statuses, shown = run(texts, commands, closed)
    assert "Traceback" not in shown
    assert statuses == [0] * 4
    assert (texts / "models" / "mine" / "model.safetensors").is_file()
    fault(34, len(commands))


def test_without_a_compiler_one_line_says_what_to_do(texts, fault):
    train = ["train", "--name", "mine", *TINY, "--training.use-compile"]
    no_compiler = {"PATH": str(texts / "nothing"), "TORCHINDUCTOR_CACHE_DIR": str(texts / "cache")}
    commands = [PREPARE, [*train, "True"], [*train, "False"]]
    statuses, shown = run(texts, commands, **no_compiler)
    [line] = [line for line in shown.splitlines() if "cannot compile" in line] or [statuses[1]]
    assert "install a C++ compiler such as g++, or go on without (use_compile False)" in line
    assert "Traceback" not in shown
    assert (statuses[0], statuses[2]) == (0, 0)
    fault(35, 2)
