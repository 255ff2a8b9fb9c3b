"""A preparation that is cut off, wherever, ends like one that was not."""

import contextlib
import dataclasses
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dimgpt import workers
from dimgpt.config import DataConfig, QualityConfig, SourceConfig
from dimgpt.data.preparing.preparation import prepare_source
from dimgpt.data.token_file import TokenFile, read_manifest

ROOT = Path(__file__).parents[3]
SIZES = {"block_bytes": 300, "part_blocks": 2}
TWO_PARTS = {"block_bytes": 300, "part_blocks": 4}
CONFIG = DataConfig(
    min_document_characters=4,
    validation_ratio=0.3,
    num_workers=1,
    quality=QualityConfig(drop_exact_duplicates=True),
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="kills processes")]


@pytest.fixture
def no_waiting(monkeypatch):
    """Do not wait for the disk: what a power cut leaves cannot be tried here anyway."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in range(2):
        texts = [f"chat {n % 25} {name * (n < 25)} ici" for n in range(30)]
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (folder / f"{name}.jsonl").write_text(lines)
    return SourceConfig(name="cats", path=str(folder))


def prepare(source, tokenizer, folder, *, config=CONFIG, progress=None, sizes=SIZES):
    return prepare_source(source, tokenizer, folder, config=config, progress=progress, **sizes)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def expected(source, tokenizer, tmp_path):
    return contents(prepare(source, tokenizer, tmp_path / "whole"))


def test_the_source_has_what_the_tests_need(expected, tokenizer, tmp_path):
    manifest = read_manifest(tmp_path / "whole" / "cats")
    assert len(manifest.files["train"].parts) == 4
    assert manifest.dropped == {"exact_duplicate": 10}
    for name, summary in manifest.files.items():
        file = TokenFile(tmp_path / "whole" / "cats", name, fingerprint=tokenizer.fingerprint)
        assert sum(map(len, file.parts)) == summary.num_tokens == file.offsets[-1]


def in_a_fork(work):
    """Run something in a copy of this process; return how that ended."""
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            work()
            status = 0
        os._exit(status)
    return os.waitpid(pid, 0)[1]


def kill_before(number):
    """Make the n-th operation on files of this process its last, before it is done."""
    count = 0

    def guarded(function):
        def call(*arguments, **options):
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    for owner, names in (
        (os, ("fsync", "open")),
        (Path, ("replace", "rename", "unlink", "mkdir", "open")),
        (shutil, ("rmtree",)),
    ):
        for name in names:
            setattr(owner, name, guarded(getattr(owner, name)))


@pytest.mark.usefixtures("no_waiting")
def test_killed_before_any_file_operation_a_run_ends_the_same(source, tokenizer, tmp_path):
    expected = contents(prepare(source, tokenizer, tmp_path / "whole", sizes=TWO_PARTS))
    for number in range(1, 10_000):
        folder = tmp_path / f"killed-{number}"

        def work(number=number, folder=folder):
            kill_before(number)
            prepare(source, tokenizer, folder, sizes=TWO_PARTS)

        status = in_a_fork(work)
        assert contents(prepare(source, tokenizer, folder, sizes=TWO_PARTS)) == expected, (
            f"operation {number}"
        )
        assert [path.name for path in folder.iterdir()] == ["cats"], f"operation {number}"
        if not os.WIFSIGNALED(status):
            break
        shutil.rmtree(folder)
    assert number > 50
    assert len(read_manifest(folder / "cats").files["train"].parts) == 2


@pytest.mark.usefixtures("no_waiting")
def test_killed_before_any_file_operation_an_older_folder_stays_or_is_replaced(
    source, tokenizer, tmp_path
):
    expected = contents(prepare(source, tokenizer, tmp_path / "whole", sizes=TWO_PARTS))
    older = dataclasses.replace(CONFIG, seed=1)
    old = contents(prepare(source, tokenizer, tmp_path / "old", config=older, sizes=TWO_PARTS))
    for number in range(1, 10_000, 7):
        folder = tmp_path / f"killed-{number}"
        shutil.copytree(tmp_path / "old", folder)

        def work(number=number, folder=folder):
            kill_before(number)
            prepare(source, tokenizer, folder, sizes=TWO_PARTS)

        status = in_a_fork(work)
        present = next(
            folder / name for name in ("cats", "cats.dimgpt-old") if (folder / name).exists()
        )
        assert contents(present) in (old, expected), f"operation {number}"
        assert contents(prepare(source, tokenizer, folder, sizes=TWO_PARTS)) == expected, (
            f"operation {number}"
        )
        shutil.rmtree(folder)
        if not os.WIFSIGNALED(status):
            break


def test_a_run_goes_on_after_its_finished_parts(source, tokenizer, tmp_path, expected):
    def stop(progress):
        if progress.num_documents > 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(source, tokenizer, tmp_path, progress=stop)
    unfinished = tmp_path / "cats.unfinished"
    parts = {path: path.stat().st_mtime_ns for path in unfinished.glob("*.bin")}
    assert parts
    seen = []

    def watch(progress):
        seen.append(progress)
        if len(seen) == 1:
            assert {path: path.stat().st_mtime_ns for path in parts} == parts

    assert contents(prepare(source, tokenizer, tmp_path, progress=watch)) == expected
    assert seen[0].num_documents > 20
    assert seen[-1].file_bytes == seen[-1].total_file_bytes
    assert seen[-1].num_documents == 50


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "pattern",
    [
        "train-*.bin",
        "train-*.index.npy",
        "part-*.json",
        "part-*.keys.npy",
        "plan.json",
    ],
)
@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_part_is_made_again(source, tokenizer, tmp_path, expected, pattern, damage):
    with contextlib.suppress(KeyboardInterrupt):
        prepare(source, tokenizer, tmp_path, progress=_stop_late)
    damage(sorted((tmp_path / "cats.unfinished").glob(pattern))[0])
    assert contents(prepare(source, tokenizer, tmp_path)) == expected


def _stop_late(progress):
    if progress.num_documents > 45:
        raise KeyboardInterrupt


def test_other_settings_begin_again(source, tokenizer, tmp_path):
    with contextlib.suppress(KeyboardInterrupt):
        prepare(source, tokenizer, tmp_path / "a", progress=_stop_late)
    other = dataclasses.replace(CONFIG, seed=1)
    for name in ("a", "b"):
        prepare(source, tokenizer, tmp_path / name, config=other)
    assert contents(tmp_path / "a" / "cats") == contents(tmp_path / "b" / "cats")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    source, tokenizer, tmp_path, expected, monkeypatch, code
):
    fsync, left = os.fsync, [20]

    def fail(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(code, os.strerror(code))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        prepare(source, tokenizer, tmp_path)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert list((tmp_path / "cats.unfinished").glob("part-*.json"))
    assert contents(prepare(source, tokenizer, tmp_path)) == expected


@pytest.mark.parametrize("limit", [60, 130, 200, 500, 900])
def test_a_file_that_may_not_grow_ends_the_run_with_an_error(
    source, tokenizer, tmp_path, expected, limit
):
    errors = tmp_path / "errors"

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with errors.open("w") as file:
            file.write(" " * 10)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            prepare(source, tokenizer, tmp_path)
        except OSError as error:
            os._exit(3 if error.errno == errno.EFBIG else 4)

    assert os.waitstatus_to_exitcode(in_a_fork(work)) == 3
    assert not (tmp_path / "cats").exists()
    assert contents(prepare(source, tokenizer, tmp_path)) == expected


def test_no_room_on_the_disk_is_said_before_anything_is_written(
    source, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(0, 0, 100))
    with pytest.raises(OSError, match=r"cats needs 0\.00 GB more .*; make room"):
        prepare(source, tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


SCRIPT = """
import sys
from pathlib import Path
from dimgpt.config import DataConfig, SourceConfig
from dimgpt import workers
from dimgpt.data.preparing.preparation import prepare_source
from dimgpt.text.tokenizer import Tokenizer

if __name__ == "__main__":
    workers.MAX_VALUES_WITHOUT_PROCESSES = 1
    vocabulary, path, folder = sys.argv[1:]
    config = DataConfig(min_document_characters=4, validation_ratio=0.1, num_workers=2)
    source = SourceConfig(name="cats", path=path)
    sizes = {"block_bytes": 5_000, "part_blocks": 4}
    print("begin", flush=True)
    tokenizer = Tokenizer.load(Path(vocabulary))
    prepare_source(source, tokenizer, Path(folder), config=config, **sizes)
"""


@pytest.fixture
def run_script(tokenizer, tmp_path):
    """Return a function that starts a preparation with two processes; it has begun on return."""
    texts = [f"Le chat {n} dort. " * 10 for n in range(1_500)]
    path = tmp_path / "cats.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    tokenizer.save(tmp_path / "vocab.txt")
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)

    def start(folder):
        command = [sys.executable, str(script), str(tmp_path / "vocab.txt"), str(path), str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        run = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        assert run.stdout.readline() == "begin\n"
        return run

    return start


def finish(run):
    _, errors = run.communicate(timeout=60)
    return run.returncode, errors


def test_killed_at_random_times_real_runs_end_the_same(run_script, tmp_path):
    start = time.perf_counter()
    assert finish(run_script(tmp_path / "whole"))[0] == 0
    duration = time.perf_counter() - start
    expected = contents(tmp_path / "whole" / "cats")
    generator = random.Random(0)
    num_kills = 0
    for _ in range(9):
        run = run_script(tmp_path / "killed")
        time.sleep(generator.uniform(0.1, 0.8) * duration)
        run.kill()
        is_killed = run.wait() == -signal.SIGKILL
        run.communicate()
        num_kills += is_killed
        if num_kills == 3:
            break
        if not is_killed:  # it was faster than the first one: begin anew, and kill earlier
            shutil.rmtree(tmp_path / "killed")
            num_kills, duration = 0, duration / 2
    assert num_kills
    assert finish(run_script(tmp_path / "killed"))[0] == 0
    assert contents(tmp_path / "killed" / "cats") == expected
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["cats"]


def test_the_number_of_processes_may_change_between_two_runs(
    source, tokenizer, tmp_path, expected, monkeypatch
):
    with contextlib.suppress(KeyboardInterrupt):
        prepare(source, tokenizer, tmp_path, progress=_stop_late)
    monkeypatch.setattr(workers, "MAX_VALUES_WITHOUT_PROCESSES", 1)
    config = dataclasses.replace(CONFIG, num_workers=2)
    assert contents(prepare(source, tokenizer, tmp_path, config=config)) == expected
