"""Checkpoints are written beside the run, which waits for the copy alone."""

import dataclasses
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from dimgpt.training import checkpoint as checkpoint_module
from dimgpt.training.checkpoint import Checkpoint, CheckpointStore, CheckpointWriter
from dimgpt.training.journal import read_history
from dimgpt.training.tensor_files import write_tensors

CPU = torch.device("cpu")
FULL = OSError(28, "No space left on device")


@pytest.fixture
def writer(tmp_path):
    return CheckpointWriter(CheckpointStore(tmp_path / "checkpoints"), CPU)


@pytest.fixture
def gate(monkeypatch):
    """Hold every write until the gate is opened."""
    opened, real = threading.Event(), checkpoint_module.write_tensors

    def write(path, tensors):
        assert opened.wait(20)
        return real(path, tensors)

    monkeypatch.setattr(checkpoint_module, "write_tensors", write)
    return opened


def tensors(value):
    return {"model": {"weight": torch.full((3,), float(value))}}


def checkpoint(step, named):
    return Checkpoint(step=step, tensors=named, state={})


def fail_writes(monkeypatch, numbers):
    """Let the disk be full at some of the writes."""
    real, count = checkpoint_module.write_tensors, [0]

    def write(path, tensors):
        count[0] += 1
        if count[0] in numbers:
            path.write_bytes(b"half")
            raise FULL
        return real(path, tensors)

    monkeypatch.setattr(checkpoint_module, "write_tensors", write)


def test_a_step_may_change_the_tensors_while_they_are_written(writer, gate):
    saved = tensors(1)
    writer.submit(checkpoint(1, saved), kinds=["step"])
    saved["model"]["weight"].fill_(9.0)
    assert writer.store.load_latest() is None
    gate.set()
    writer.wait()
    assert writer.store.load_latest().tensors["model"]["weight"].tolist() == [1.0] * 3


@pytest.mark.slow
def test_one_write_at_a_time_is_under_way_and_memory_is_used_again(writer, gate):
    writer.submit(checkpoint(1, tensors(1)), kinds=["step"])
    first = {name: copy.data_ptr() for name, copy in writer._copies.items()}
    second = threading.Thread(
        target=writer.submit, args=(checkpoint(2, tensors(2)),), kwargs={"kinds": ["step"]}
    )
    second.start()
    second.join(0.2)
    assert second.is_alive(), "it waits for the write before"
    gate.set()
    second.join(20)
    writer.wait()
    assert {name: copy.data_ptr() for name, copy in writer._copies.items()} == first
    loaded = [writer.store.load_latest().tensors["model"]["weight"][0].item()]
    assert loaded == [2.0]


@pytest.mark.slow
def test_a_run_goes_on_while_a_checkpoint_is_written(config, make_trainer, gate):
    def open_gate(record):
        if record["kind"] == "step" and record["step"] == 3:
            gate.set()  # the checkpoint of step 2 has been waiting until now

    config = dataclasses.replace(config, validation_interval=100)
    assert make_trainer(config, observers=[open_gate]).fit().is_finished


def test_best_and_newest_are_made_of_one_copy(writer):
    saved = tensors(1) | {"optimizer": {"moment": torch.ones(2)}}
    writer.submit(checkpoint(4, saved), kinds=["best", "step"])
    writer.wait()
    files = {
        p.relative_to(writer.store.folder).as_posix() for p in writer.store.folder.rglob("*.s*")
    }
    assert files == {
        "best-00000004/model.safetensors",
        "step-00000004/model.safetensors",
        "step-00000004/optimizer.safetensors",
    }


@pytest.mark.slow
def test_a_write_that_fails_for_another_reason_is_raised_in_the_run(
    config, make_trainer, monkeypatch
):
    def fail(path, tensors):
        raise ValueError("no such type")

    monkeypatch.setattr(checkpoint_module, "write_tensors", fail)
    with pytest.raises(ValueError, match="no such type"):
        make_trainer(config).fit()


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 8))
def test_a_full_disk_leaves_the_last_good_one_and_the_next_interval_tries_again(
    config, make_trainer, monkeypatch, number, caplog
):
    fail_writes(monkeypatch, {number})
    trainer = make_trainer(config)
    trainer.fit()
    assert "could not be written" in caplog.text
    assert "before the next checkpoint" in caplog.text
    assert trainer.checkpoints.load_latest().step == 6
    left = {path.suffix for path in trainer.checkpoints.folder.iterdir()}
    assert left == {""}, "no half-written folder stays"


@pytest.mark.slow
def test_a_disk_that_stays_full_ends_with_one_line_and_the_last_good_one(
    config, make_trainer, monkeypatch
):
    fail_writes(monkeypatch, set(range(3, 99)))
    trainer = make_trainer(config)
    with pytest.raises(
        OSError, match="of step 6, could not be written .* free some space"
    ) as error:
        trainer.fit()
    assert "\n" not in str(error.value)
    assert trainer.checkpoints.load_latest().step == 2
    steps = [r["step"] for r in read_history(trainer.journal.path) if r["kind"] == "step"]
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6, dtype=torch.float32).view(2, 3),
        torch.tensor(7.0),
        torch.ones(3, dtype=torch.bfloat16),
        torch.arange(5),
        torch.tensor([True, False]),
        torch.zeros(0, 4),
    ],
    ids=str,
)
def test_the_library_reads_what_is_written_and_the_hash_is_the_files(tmp_path, tensor):
    from safetensors.torch import load_file

    from dimgpt.files import sha256_of

    path = tmp_path / "é.safetensors"
    named = {"a/b": tensor, "odd": torch.tensor([1], dtype=torch.uint8), "z": torch.ones(2)}
    assert write_tensors(path, named) == sha256_of(path)
    loaded = load_file(path)
    assert loaded.keys() == named.keys()
    for name, expected in named.items():
        assert loaded[name].dtype == expected.dtype
        assert torch.equal(loaded[name], expected)


@pytest.mark.slow
def test_a_process_that_ends_at_once_ends_with_a_whole_checkpoint(tmp_path):
    script = f"""
import torch
from pathlib import Path
from dimgpt.training.checkpoint import Checkpoint, CheckpointStore, CheckpointWriter

writer = CheckpointWriter(CheckpointStore(Path({str(tmp_path)!r})), torch.device("cpu"))
tensors = {{"model": {{"weight": torch.ones(10_000_000)}}}}
writer.submit(Checkpoint(step=7, tensors=tensors, state={{}}), kinds=["step"])
raise SystemExit(5)
"""
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], check=False, timeout=120)
    assert run.returncode == 5
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000007"]
    assert CheckpointStore(tmp_path).load_latest().step == 7


def test_an_interrupt_before_a_write_begins_leaves_nothing_to_wait_for(writer, monkeypatch):
    def interrupted(thread):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.submit(checkpoint(1, tensors(1)), kinds=["step"])
    writer.wait()
    writer.submit(checkpoint(2, tensors(2)), kinds=["step"])
    writer.wait()
    assert writer.store.load_latest().step == 2
