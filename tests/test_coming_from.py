"""The tables for people who come from another system: each row is parsed by the command line.

What the rows do is shown by `tests/commands/test_lillm.py`, `training/test_original_run.py`,
`commands/test_preset_runs.py`, `generation/test_toygpt_text.py`, `data/test_dataset_list.py` and
`data/preparing/test_originals.py`.
"""

import json
import re
import shlex
from pathlib import Path

import pytest

from dimgpt.cli import main
from dimgpt.commands import VERBS

PAGE = Path(__file__).parents[1] / "docs" / "coming-from.md"
ROWS = re.findall(r"^\| (.+?) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
ROWS = [row for row in ROWS if row[0] not in ("theirs", "---")]
VALUES = {
    "--training.precision": "fp32",
    "--training.trackers": "wandb",
    "--training.min-learning-rate": "0.001",
}


def commands(cell):
    """Return the words of each command in a cell; a flag alone is one of `train` or `generate`."""
    found = []
    for span in re.findall(r"`([^`]+)`", cell):
        words = shlex.split(span.removeprefix("-m dimgpt "))
        if words[0] in VERBS:
            found.append(words)
        elif words[0].startswith("--"):
            verb = ["generate", "--prompt", "P"] if "sampling" in words[0] else ["train"]
            found.append([*verb, *words, *([] if words[1:] else [VALUES.get(words[0], "1")])])
    return found


@pytest.fixture
def parsed(monkeypatch):
    """Parse a command with the real flags of its verb, without running it."""
    verbs = []

    def read(words):
        from dimgpt import cli

        real = cli._read_flags

        def keep(name, rest):
            verbs.append(real(name, rest))
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(cli, "_read_flags", keep)
            with pytest.raises(SystemExit) as stop:
                main(words)
        assert stop.value.code == 130, f"{words}: {stop.value.code}"
        return verbs[-1]

    return read


def test_every_system_has_its_table():
    theirs = " ".join(left for left, _ in ROWS)
    assert len(ROWS) > 25
    assert all(name in theirs for name in ("testing.ipynb", "sft_train.py", "datasets.json"))


@pytest.mark.parametrize(("theirs", "here"), ROWS, ids=[left[:40] for left, _ in ROWS])
def test_what_a_row_promises_is_understood(parsed, theirs, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("F").write_text(json.dumps({"preset": "toygpt-small", "model": {"num_layers": 3}}))
    found = commands(here)
    assert found, f"the row of {theirs} names no command"
    for words in found:
        parsed(words)


def test_a_row_with_a_flag_that_is_gone_would_fail(parsed):
    with pytest.raises(AssertionError):
        parsed(["train", "--training.no-such-flag", "1"])
