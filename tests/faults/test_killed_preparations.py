"""A preparation that is cut off, wherever, ends like one that was not."""

import contextlib
import errno
import functools
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
import traceback

import pytest

from dimgpt import workers
from dimgpt.config import TokenizerConfig
from dimgpt.data.preparing.plan import Share
from dimgpt.data.preparing.preparation import plan_preparation
from dimgpt.data.token_file import read_manifest
from dimgpt.pipeline.data import merge_shares, prepare_files
from dimgpt.pipeline.vocabulary import prepare_vocabulary
from dimgpt.presets import PRESETS
from dimgpt.settings import override
from dimgpt.workspace import Workspace, customise_data

resource = pytest.importorskip("resource", reason="there is none on Windows")
pytestmark = pytest.mark.slow
SIZES = {"block_bytes": 300, "part_blocks": 4}


@pytest.fixture(autouse=True, scope="module")
def _small_blocks():
    """Cut small texts into many blocks and parts, and take processes for a few of them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SIZES.items():
            patch.setitem(plan_preparation.__kwdefaults__, name, value)
        patch.setattr(workers, "MAX_VALUES_WITHOUT_PROCESSES", 1)
        # Spawned processes take a second to load what forked ones have.
        context = multiprocessing.get_context("fork")
        patch.setattr(multiprocessing, "get_context", lambda kind: context)
        yield


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "texts"
    folder.mkdir()
    for name in range(2):
        texts = [f"chat {n % 25} {name * (n < 25)} ici" for n in range(30)]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text(lines)
    return customise_data(
        override(PRESETS["demo"], name="mine"),
        sources=[str(folder)],
        vocab_size=300,
        tokenizer=TokenizerConfig(kind="byte_level"),
        min_document_characters=4,
        validation_ratio=0.3,
        num_workers=1,
        drop_exact_duplicates=True,
    )


def prepare(preset, root, *, num_workers=1, share=None, progress=None, seed=0):
    """Do what `python -m dimgpt prepare` and `create_data.ipynb` do."""
    data = override(preset.data, num_workers=num_workers, seed=seed)
    workspace = Workspace(preset=override(preset, data=data), data_root=root)
    prepare_files(workspace, prepare_vocabulary(workspace), share=share, progress=progress)
    return workspace


def contents(root):
    """Return all files but settings, locks, and small ones that a killed process was writing."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in ("lock", "config.json") and path.suffix != ".tmp"
    }


@pytest.fixture(scope="module")
def expected(preset, tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    prepare(preset, root)
    manifest = read_manifest(root / "mine" / "pretraining" / "texts")
    assert len(manifest.files["train"].parts) == 2
    assert manifest.dropped == {"exact_duplicate": 10}
    return contents(root)


def begin(work):
    """Do something in a copy of this process; return its id, and a pipe open as long as it runs."""
    pipe, other_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    os.close(other_end)
    return pid, pipe


def end(pid, pipe):
    """Wait until a copy has ended, and the workers that it started; return its exit code."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.read(pipe, 1)
    os.close(pipe)
    return status


def kill_before(number):
    """Make the n-th change of a file or folder of this process its last, before it is done."""
    changes = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}
    count = 0

    def watch(event, arguments):
        nonlocal count
        is_opened = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if is_opened or event in changes:
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def test_killed_before_any_file_operation_a_run_ends_the_same(preset, expected, tmp_path, fault):
    for number in range(1, 10_000):
        root = tmp_path / f"killed-{number}"

        def work(number=number, root=root):
            kill_before(number)
            prepare(preset, root)

        status = end(*begin(work))
        prepare(preset, root)
        assert contents(root) == expected, f"operation {number}"
        if status == 0:
            break
        assert status == -signal.SIGKILL
        fault(1)
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def older(preset, tmp_path_factory):
    """The folder of a preparation with another seed."""
    return prepare(preset, tmp_path_factory.mktemp("older"), seed=1).data_root


def test_killed_before_a_file_operation_an_older_folder_stays_or_is_replaced(
    preset, expected, older, tmp_path, fault
):
    old = contents(older)
    for number in range(1, 10_000, 7):
        root = tmp_path / f"killed-{number}"
        shutil.copytree(older, root)

        def work(number=number, root=root):
            kill_before(number)
            prepare(preset, root)

        status = end(*begin(work))
        sources = root / "mine" / "pretraining"
        found = [sources / name for name in ("texts", "texts.dimgpt-old")]
        present = contents(next(folder for folder in found if folder.exists()))
        assert present in (
            {key.split("/")[-1]: value for key, value in whole.items() if "/texts/" in key}
            for whole in (old, expected)
        ), f"operation {number}"
        prepare(preset, root)
        assert contents(root) == expected, f"operation {number}"
        if status == 0:
            break
        fault(1)
        shutil.rmtree(root)


def kill_at_random(work, generator, seconds):
    """Do something in a copy of this process that is killed in between; say whether it was."""
    pid, pipe = begin(work)
    time.sleep(generator.uniform(0, seconds))
    os.kill(pid, signal.SIGKILL)
    return end(pid, pipe) == -signal.SIGKILL


def test_killed_at_random_times_a_run_ends_the_same(preset, expected, tmp_path, fault):
    generator, root, seconds, num_kills = random.Random(0), tmp_path / "killed", 0.2, 0
    while num_kills < 30:
        if kill_at_random(lambda: prepare(preset, root), generator, seconds):
            num_kills += 1
            if num_kills % 3:
                continue  # killed again before it has ended
        else:
            seconds *= 0.9
        prepare(preset, root)
        assert contents(root) == expected
        shutil.rmtree(root)
    fault(2, num_kills)


@pytest.fixture(scope="module")
def plain(preset):
    """A preset that shares can divide: copies are found in one run only."""
    return customise_data(preset, drop_exact_duplicates=False)


AGAIN = [1, 2, 3, "two shares", "three shares"]


def test_killed_with_several_workers_others_and_shares_end_the_same(plain, tmp_path, fault):
    prepare(plain, tmp_path / "whole")
    expected = contents(tmp_path / "whole")
    generator, seconds, num_kills = random.Random(0), 0.4, 0
    while num_kills < 20:
        num_workers, again = 2 + num_kills % 2, AGAIN[num_kills % len(AGAIN)]
        root = tmp_path / str(num_kills)
        begun = functools.partial(prepare, plain, root, num_workers=num_workers)
        if not kill_at_random(begun, generator, seconds):
            seconds *= 0.9
            shutil.rmtree(root)
            continue
        num_kills += 1
        if isinstance(again, int):
            prepare(plain, root, num_workers=again)
        else:
            count = 2 if again == "two shares" else 3
            for index in range(1, count + 1):
                workspace = prepare(plain, root, share=Share(index=index, count=count))
            merge_shares(workspace)
        assert contents(root) == expected, f"{num_workers} workers, then {again}"
        fault(30)


def test_the_number_of_workers_changes_no_byte_of_what_is_begun(preset, expected, tmp_path):
    with contextlib.suppress(KeyboardInterrupt):
        prepare(preset, tmp_path, progress=_stop_late)
    assert list(tmp_path.rglob("part-*.json"))
    prepare(preset, tmp_path, num_workers=2)
    assert contents(tmp_path) == expected


def _stop_late(progress):
    if progress.num_documents > 45:
        raise KeyboardInterrupt


@pytest.mark.parametrize("num_writes", [0, 5, 20])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    preset, expected, older, tmp_path, monkeypatch, code, num_writes, fault
):
    left = num_writes

    def fail(descriptor):
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(code, os.strerror(code))

    root = shutil.copytree(older, tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match=os.strerror(code)) as caught:
            prepare(preset, root)
    assert "\n" not in str(caught.value)
    assert contents(root).items() >= contents(older).items()
    prepare(preset, root)
    assert contents(root) == expected
    fault(3)


@pytest.mark.parametrize("limit", [60, 130, 200, 500, 900])
def test_a_file_that_may_not_grow_ends_the_run_with_an_error(
    preset, expected, older, tmp_path, limit, fault
):
    root = shutil.copytree(older, tmp_path / "data")

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(OSError, match="File too large"):
            prepare(preset, root)

    assert end(*begin(work)) == 0
    assert contents(root).items() >= contents(older).items()
    prepare(preset, root)
    assert contents(root) == expected
    fault(3)


def test_no_room_on_the_disk_is_said_before_anything_is_written(
    preset, tmp_path, monkeypatch, fault
):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 100))
    with pytest.raises(OSError, match=r"data_root needs 0\.00 GB more .*; make room"):
        prepare(preset, tmp_path)
    assert not list(tmp_path.rglob("*.bin"))
    fault(3)
