import hashlib
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dimgpt.files import new_folder, replace_file, sha256_of

ROOT = Path(__file__).parents[1]
# Runs a script that dies, like the plug pulled, before its n-th change of a file.
DYING = """
import os, pathlib, signal, sys
count = 0
def watch(event, arguments):
    global count
    writes = event == "open" and "w" in str(arguments[1] or "r")
    if writes or event in {"os.rename", "os.mkdir", "os.remove", "os.rmdir"}:
        count += 1
        if count == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
from dimgpt.files import new_folder, replace_file
folder = pathlib.Path(sys.argv[1])
sys.addaudithook(watch)
"""
WRITES_A_FOLDER = """
with new_folder(folder) as new:
    (new / "a").write_text("new")
    (new / "sub").mkdir()
    (new / "sub" / "b").write_text("new")
"""
WRITES_A_FILE = "replace_file(folder / 'file', b'new' * 100_000)"


def die_at(step: int, folder: Path, script: str) -> bool:
    """Run until the step, and tell whether the script came to its end before it."""
    command = [sys.executable, "-c", DYING + script, str(folder), str(step)]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    assert code in (0, -signal.SIGKILL)
    return code == 0


def read(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.rglob("*") if path.is_file()}


def write_folder(folder: Path, content: str) -> None:
    with new_folder(folder) as new:
        (new / "a").write_text(content)
        (new / "sub").mkdir()
        (new / "sub" / "b").write_text(content)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is not there")
def test_a_folder_killed_at_any_step_is_the_old_one_or_the_new_one(tmp_path):
    states = set()
    for step in itertools.count(1):
        folder = tmp_path / str(step) / "folder"
        write_folder(folder, "old")
        ended = die_at(step, folder, WRITES_A_FOLDER)
        # At one point the old folder waits under its other name: then the next call returns it.
        place = folder if folder.exists() else folder.with_name("folder.dimgpt-old")
        states.add((place.name, *read(place)))
        assert len(read(place)) == 1, "a mixture"
        assert len(list(place.rglob("*"))) == 3
        with pytest.raises(KeyError), new_folder(folder):  # noqa: PT012
            assert len(read(folder)) == 1
            raise KeyError
        assert len(read(folder)) == 1
        if ended:
            break
    assert states == {("folder", "old"), ("folder.dimgpt-old", "old"), ("folder", "new")}


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is not there")
def test_a_file_killed_at_any_step_is_the_old_one_or_the_new_one(tmp_path):
    seen = []
    for step in itertools.count(1):
        (tmp_path / "file").write_text("old")
        ended = die_at(step, tmp_path, WRITES_A_FILE)
        seen.append((tmp_path / "file").read_text()[:3])
        assert (tmp_path / "file").stat().st_size in (3, 300_000)
        if ended:
            break
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {"old", "new"}


def test_an_error_in_the_block_keeps_the_old_folder_and_leaves_nothing_beside_it(tmp_path):
    write_folder(tmp_path / "folder", "old")
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "folder") as new:  # noqa: PT012
        (new / "a").write_text("new")
        raise KeyboardInterrupt
    assert read(tmp_path / "folder") == {"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_error_in_the_block_makes_no_folder(tmp_path):
    with pytest.raises(ValueError, match="no"), new_folder(tmp_path / "folder"):
        raise ValueError("no")
    assert list(tmp_path.iterdir()) == []


def test_a_rename_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch):
    write_folder(tmp_path / "folder", "old")
    rename = Path.rename

    def locked(self, target):
        if self.name == "folder.dimgpt-new":
            raise PermissionError("locked")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", locked)
    with pytest.raises(PermissionError):
        write_folder(tmp_path / "folder", "new")
    assert read(tmp_path / "folder") == {"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_a_killed_call_left_is_no_part_of_the_new_folder(tmp_path):
    (tmp_path / "folder.dimgpt-new").mkdir()
    (tmp_path / "folder.dimgpt-new" / "rest").write_text("of before")
    write_folder(tmp_path / "folder", "new")
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == ["a", "sub"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_folders_of_a_person_beside_it_stay(tmp_path):
    for name in ("folder.old", "folder.tmp", "folder.new"):
        write_folder(tmp_path / name, name)
    for _ in range(2):
        write_folder(tmp_path / "folder", "new")
    assert read(tmp_path / "folder") == {"new"}
    assert read(tmp_path / "folder.old") == {"folder.old"}
    assert len(list(tmp_path.iterdir())) == 4


def test_replace_file_makes_the_folder_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "a b" / "é.txt"
    replace_file(path, b"1")
    replace_file(path, b"2")
    assert path.read_bytes() == b"2"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    replace_file(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc" * 1000)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"abc" * 1000).hexdigest()
