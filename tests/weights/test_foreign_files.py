import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dimgpt.weights.foreign_files import describe, list_names
from dimgpt.weights.originals import load_original

FIXTURES = Path(__file__).parents[1] / "fixtures"


def test_what_is_no_model_is_described_by_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    for content, expected in (
        (b"", "an empty file"),
        (b"\n <!DOCTYPE html><title>404</title>", "an HTML page"),
        (b"<HTML>", "an HTML page"),
        (b'{"error": "not found"}', "a JSON file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"GGUF\x03\0\0\0", "a GGUF file"),
        (gzip.compress(b"x"), "a gzip archive"),
        (b"\x80\x04\x95\x00", "a pickle"),
        ("Été\n".encode(), "a text file"),
        (b"\0\1\2\3" * 250, "a file of 1,000 unknown bytes"),
        (b"PK\x05\x06" + bytes(18), "an empty zip archive"),
    ):
        path.write_bytes(content)
        assert describe(path).startswith(expected)
        with pytest.raises(ValueError, match=f"file.pt is {expected}") as caught:
            load_original(path)
        assert "\n" not in str(caught.value)


def test_archives_and_weights_are_described_by_their_content(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", first=1, second=2)
    assert describe(tmp_path / "a.npz") == "a zip archive with first.npy, second.npy"
    save_file({f"w{i}": torch.ones(2) for i in range(6)}, tmp_path / "a.safetensors")
    assert "a safetensors file with tensors w0, w1, w2, w3 and 2 more" in describe(
        tmp_path / "a.safetensors"
    )
    with pytest.raises(ValueError, match=r"a safetensors file with tensors w0.*give a checkpoint"):
        load_original(tmp_path / "a.safetensors")
    assert describe(FIXTURES / "dimensiongpt" / "tiny.pt") == "a PyTorch file"
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("two\nlines", b"")
    assert describe(tmp_path / "b.zip") == "a zip archive with two?lines"


def test_folders_are_described_by_what_they_hold(tmp_path: Path) -> None:
    assert describe(tmp_path) == "an empty folder"
    (tmp_path / "notes.txt").touch()
    assert describe(tmp_path) == "a folder with notes.txt"
    with pytest.raises(ValueError, match=r"a folder with notes.txt: give a checkpoint of"):
        load_original(tmp_path)
    for name in ("a.pt", "b.ckpt"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"several checkpoints \(a.pt, b.ckpt\): give one"):
        load_original(tmp_path)


def test_nothing_is_named(tmp_path: Path) -> None:
    assert describe(tmp_path / "nothing") == "nothing"
    with pytest.raises(FileNotFoundError, match=r"nothing.ckpt is missing"):
        load_original(tmp_path / "nothing.ckpt")


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_are_described_in_one_line(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    content = random.integers(0, 256, int(random.integers(1, 200)), dtype=np.uint8).tobytes()
    for start in (b"", b"PK\x03\x04", b"\x40\0\0\0\0\0\0\0{", b'\x0a\0\0\0\0\0\0\0{"a\\n": 1}'):
        (tmp_path / "file").write_bytes(start + content)
        assert "\n" not in describe(tmp_path / "file")


def test_long_lists_of_names_are_cut() -> None:
    assert list_names([]) == ""
    assert list_names(["x" * 1000]) == "x" * 80
    assert list_names([str(i) for i in range(1004)]) == "0, 1, 2, 3 and 1,000 more"
