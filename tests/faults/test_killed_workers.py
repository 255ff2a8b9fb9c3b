"""A worker that is killed: its run ends soon with one line, and goes on when it is repeated."""

import json
import multiprocessing
import os
import signal
import time

import pytest

from dimgpt.config import TokenizerConfig
from dimgpt.data.preparing.preparation import plan_preparation
from dimgpt.pipeline.data import prepare_files
from dimgpt.pipeline.vocabulary import prepare_vocabulary
from dimgpt.presets import PRESETS
from dimgpt.settings import override
from dimgpt.workers import map_in_order
from dimgpt.workspace import Workspace, customise_data

pytestmark = pytest.mark.slow

MESSAGE = "a process that encodes died.*run again to go on"


def kill_workers(count):
    for process in multiprocessing.active_children()[:count]:
        os.kill(process.pid, signal.SIGKILL)


def test_killed_workers_end_endless_work_within_ten_seconds(fault):
    results = map_in_order(hex, ((0, number) for number in range(10**9)), num_workers=2)
    next(results)
    start = time.monotonic()
    kill_workers(2)
    with pytest.raises(RuntimeError, match=MESSAGE):
        for _ in results:
            pass
    assert time.monotonic() - start < 10
    fault(8)


@pytest.fixture
def prepare(tmp_path, monkeypatch):
    """Return a function that prepares texts in many small blocks, and returns the files."""
    for name, value in {"block_bytes": 300, "part_blocks": 4}.items():
        monkeypatch.setitem(plan_preparation.__kwdefaults__, name, value)
    lines = [json.dumps({"text": f"le chat {number} dort dans la cour"}) for number in range(200)]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    preset = customise_data(
        override(PRESETS["demo"], name="mine"),
        sources=[str(tmp_path / "texts.jsonl")],
        vocab_size=300,
        tokenizer=TokenizerConfig(kind="byte_level"),
        validation_ratio=0.3,
        num_workers=2,
    )

    def run(root, progress=None):
        workspace = Workspace(preset=preset, data_root=tmp_path / root)
        prepare_files(workspace, prepare_vocabulary(workspace), progress=progress)
        return {path.name: path.read_bytes() for path in (tmp_path / root).rglob("*.bin")}

    return run


@pytest.mark.parametrize("num_killed", [1, 2])
def test_a_preparation_whose_workers_were_killed_goes_on(prepare, tmp_path, num_killed, fault):
    start = None

    def kill(progress):
        nonlocal start
        if start is None and progress.num_documents > 30:
            assert len(multiprocessing.active_children()) == 2
            start = time.monotonic()
            kill_workers(num_killed)

    with pytest.raises(RuntimeError, match=MESSAGE):
        prepare("killed", kill)
    assert time.monotonic() - start < 10
    assert list((tmp_path / "killed").rglob("part-*.json"))  # what was done is kept
    expected = prepare("whole")
    assert len(expected) > 3
    assert prepare("killed") == expected
    fault(8)
