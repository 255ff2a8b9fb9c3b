"""A checkpoint is whole or not there."""

import dataclasses
import json
import re

import pytest
import torch

from dimgpt.training import checkpoint as module
from dimgpt.training.checkpoint import Checkpoint, CheckpointStore


def checkpoint(step):
    tensors = {"model": {"weight": torch.full((3,), float(step))}}
    return Checkpoint(step=step, tensors=tensors, state={"tokens": step * 10})


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


def names(store):
    return sorted(path.name for path in store.folder.iterdir())


def test_what_is_saved_is_loaded(store):
    assert store.load_latest() is None
    store.save(checkpoint(7))
    loaded = store.load_latest()
    assert (loaded.step, loaded.state["tokens"]) == (7, 70)
    assert torch.equal(loaded.tensors["model"]["weight"], torch.full((3,), 7.0))


def test_the_newest_two_and_the_best_are_kept(store):
    for step in (1, 2, 3):
        store.save(checkpoint(step))
        store.save(checkpoint(step), kind="best")
    assert names(store) == ["best-00000003", "step-00000002", "step-00000003"]


@pytest.mark.parametrize("keep", [1, 3, 7])
def test_as_many_are_kept_as_asked_for(tmp_path, keep):
    store = CheckpointStore(tmp_path, keep=keep)
    for step in range(10):
        store.save(checkpoint(step))
        expected = list(range(max(0, step - keep + 1), step + 1))
        assert [int(name.removeprefix("step-")) for name in names(store)] == expected


def test_on_a_full_disk_old_checkpoints_make_room_and_the_newest_stays(
    tmp_path, monkeypatch, caplog
):
    store = CheckpointStore(tmp_path, keep=5)
    for step in (1, 2, 3):
        store.save(checkpoint(step))
    free = [11, 13]  # a checkpoint has 12 bytes of numbers
    usage = module.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=free.pop(0)))
    store.save(checkpoint(4))
    assert names(store) == ["step-00000002", "step-00000003", "step-00000004"]
    assert re.search("of step 4: deleting .*step-00000001", caplog.text)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage._replace(free=0))
    store.save(checkpoint(5))
    assert names(store) == ["step-00000004", "step-00000005"]


def test_what_was_damaged_and_passed_over_does_not_outlive_what_comes_after(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    store.save(checkpoint(3))
    (store.save(checkpoint(6)) / "manifest.json").unlink()
    store.save(checkpoint(4))
    store.save(checkpoint(9), kind="best")
    store.save(checkpoint(8), kind="best")
    assert names(store) == ["best-00000008", "step-00000004"]


@pytest.mark.parametrize(
    ("losses", "kept"),
    [([5.0, 4.0, 3.0, 2.0], [2, 3]), ([2.0, 9.0, 3.0, 4.0], [0, 3]), ([4.0, 5.0], [0, 1])],
)
def test_of_the_best_those_of_the_lowest_losses_are_kept_and_the_newest(tmp_path, losses, kept):
    store = CheckpointStore(tmp_path, keep_best=2)
    for step, loss in enumerate(losses):
        state = {"last_validation": {"loss": loss}}
        store.save(dataclasses.replace(checkpoint(step), state=state), kind="best")
    assert names(store) == [f"best-{step:08d}" for step in kept]


@pytest.mark.parametrize(
    "damage", ["flip", "cut", "missing", "no manifest", "bad manifest", "empty manifest"]
)
def test_a_damaged_checkpoint_is_passed_over_and_named(store, damage, caplog):
    store.save(checkpoint(1))
    newest = store.save(checkpoint(2))
    weights, manifest = newest / "model.safetensors", newest / "manifest.json"
    content = weights.read_bytes()
    if damage == "flip":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "cut":
        weights.write_bytes(content[:-4])
    elif damage == "missing":
        weights.unlink()
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "bad manifest":
        manifest.write_text("{")
    else:
        manifest.write_text("{}")
    assert store.load_latest().step == 1
    assert "step-00000002 is damaged" in caplog.text


def test_an_interrupted_save_keeps_the_old_checkpoint(store, monkeypatch):
    store.save(checkpoint(1))

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dimgpt.training.checkpoint.write_tensors", fail)
    with pytest.raises(OSError, match="No space left"):
        store.save(checkpoint(2))
    assert names(store) == ["step-00000001"]
    assert store.load_latest().step == 1


def test_a_folder_of_another_name_is_not_a_checkpoint(store):
    store.save(checkpoint(1))
    (store.folder / "step-00000009.dimgpt-new").mkdir()
    (store.folder / "step-notes").mkdir()
    assert store.load_latest().step == 1


def test_the_manifest_names_every_file(store):
    path = store.save(checkpoint(1))
    manifest = json.loads((path / "manifest.json").read_text())
    assert sorted(manifest) == ["model.safetensors", "state.json"]
