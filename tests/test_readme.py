"""The recipes of the README, run as they are written, in a real process at toy size."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TOY_MODEL = (
    "--model.context-length 32 --model.window-size 8 --model.embedding-dim 16 --device cpu "
    "--model.num-layers 1 --model.num-heads 2 --model.num-kv-heads 1 --model.ffn-dim 24"
)
TOY_RUN = (
    "--training.max-steps 3 --training.batch-size 2 --training.warmup-steps 1 "
    "--training.precision fp32 --training.validation-batches 1"
)
TOY_FLAGS = {
    "prepare": "--data.vocab-size 300 --data.num-workers 1",
    "train": f"{TOY_MODEL} {TOY_RUN}",
    "finetune": f"{TOY_RUN} --device cpu",
    "generate": "--sampling.max-new-tokens 5",
    "chat": "--sampling.max-new-tokens 5",
}


def recipe(name):
    """Return the words of each command between the marks of a recipe."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (content,) = re.findall(rf"<!-- recipe: {name} -->(.*?)<!-- /recipe -->", text, re.DOTALL)
    lines = content.strip().splitlines()
    assert (lines[0], lines[-1]) == ("```shell", "```")
    return [shlex.split(line) for line in lines[1:-1]]


# One process for all commands, since each would spend seconds on loading torch.
RUN_ALL = """
import json, runpy, sys
for words in json.loads(sys.argv[1]):
    print("$", *words)
    sys.argv = words
    runpy.run_module("dimgpt", run_name="__main__", alter_sys=True)
"""


def run(folder, commands):
    """Run commands one after another, as `python -m dimgpt` does, and return what they print."""
    assert all(words[:3] == ["python", "-m", "dimgpt"] for words in commands)
    arguments = [[*words[2:], *TOY_FLAGS[words[3]].split()] for words in commands]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(arguments)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        input="Bonjour\n\n",
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


def test_own_data_take_five_lines_from_texts_to_chat(tmp_path):
    (tmp_path / "my_texts").mkdir()
    for number in range(60):
        text = f"Il était une fois un chat, le numéro {number}. Il dort dans la cour et mange. " * 3
        (tmp_path / "my_texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    with (tmp_path / "my_chats.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [[f"Qui est le numéro {number} ?", "Un chat qui dort."] for number in range(40)]
        csv.writer(file).writerows([["user", "assistant"], *rows])
    commands = recipe("own-data")
    assert len(commands) == 5
    shown = run(tmp_path, commands)
    prepared = shown.split("$ dimgpt train")[0]
    assert {"my_texts", "my_chats"} <= set(prepared.split())
    assert (tmp_path / "models" / "mine-chat" / "model.safetensors").is_file()
