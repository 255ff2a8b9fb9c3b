import dataclasses
import errno
import json

import numpy as np
import pytest

from dimgpt.data.token_file import Manifest, TokenFile, read_manifest, write_manifest
from dimgpt.data.token_writer import TokenFileWriter, join_parts

FINGERPRINT = "f" * 64
DOCUMENTS = [[2, 20, 21, 9], [2, 9], [2, 30, 31, 32, 33, 9]]


@pytest.fixture
def folder(tmp_path, write_files):
    return write_files(tmp_path / "books", {"train": DOCUMENTS, "validation": [[2, 50, 9]]})


def open_train(folder):
    return TokenFile(folder, "train", fingerprint=FINGERPRINT)


def test_documents_come_back_as_written(folder):
    file = open_train(folder)
    assert [file.document(i).tolist() for i in range(file.num_documents)] == DOCUMENTS
    assert file.offsets.tolist() == [0, 4, 6, 12]
    assert file.num_tokens == 12
    assert file.dtype == np.uint16
    assert not file.document(0).flags.writeable


def test_the_file_is_the_plain_concatenation(folder):
    written = np.fromfile(folder / "train.bin", dtype="<u2")
    assert written.tolist() == [id for document in DOCUMENTS for id in document]


def test_a_large_vocabulary_is_written_in_four_bytes(tmp_path, write_files):
    write_files(tmp_path, {"train": [[2, 65_536, 9]]}, vocab_size=70_000)
    file = open_train(tmp_path)
    assert file.dtype == np.uint32
    assert file.document(0).tolist() == [2, 65_536, 9]


def write(writer, ids, lengths):
    writer.write_documents(np.array(ids), np.array(lengths), num_characters=0, num_bytes=0)


def edit_manifest(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-2])


def test_a_folder_of_the_first_format_is_still_opened(folder):
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    for name, entry in values["files"].items():
        (part,) = entry.pop("parts")
        assert part["name"] == f"{name}.bin"
        entry["ids_sha256"] = part["sha256"]
    del values["dropped"]
    path.write_text(json.dumps(values | {"format_version": 1, "num_dropped": 3}))
    assert open_train(folder).document(2).tolist() == DOCUMENTS[2]
    assert read_manifest(folder).dropped == {"too_short": 3}


def test_a_folder_that_counted_no_raw_bytes_is_still_opened(folder):
    values = json.loads((folder / "manifest.json").read_text())
    for entry in values["files"].values():
        del entry["num_raw_bytes"]
    edit_manifest(folder, files=values["files"])
    assert open_train(folder).summary.num_raw_bytes is None


def test_raw_bytes_are_known_where_those_of_all_documents_are(tmp_path):
    for counts, total in (([3, 5], 8), ([3, None], None), ([None, 5], None)):
        with TokenFileWriter(tmp_path, "train", vocab_size=100) as writer:
            for count in counts:
                sizes = {"num_characters": 0, "num_bytes": 0, "num_raw_bytes": count}
                writer.write_documents(np.array([2, 9]), np.array([2]), **sizes)
        assert writer.summary.num_raw_bytes == total
        pieces = [(writer.index_path, writer.summary)] * 2
        joined = join_parts(tmp_path, "whole", pieces).num_raw_bytes
        assert joined == (None if total is None else 2 * total)


@pytest.fixture
def joined(tmp_path):
    """Three parts, joined; the one in the middle is in a folder of its own."""
    (tmp_path / "share").mkdir()
    pieces = []
    for number, documents in enumerate((DOCUMENTS[:1], DOCUMENTS[1:], [[2, 40, 9]] * 3)):
        folder = tmp_path / "share" if number == 1 else tmp_path
        with TokenFileWriter(folder, f"train-{number}", vocab_size=100) as writer:
            write(writer, sum(documents, []), list(map(len, documents)))
        (part,) = writer.summary.parts
        part = dataclasses.replace(part, name=(folder / part.name).relative_to(tmp_path).as_posix())
        pieces.append((writer.index_path, dataclasses.replace(writer.summary, parts=(part,))))
    summary = join_parts(tmp_path, "train", pieces)
    manifest = Manifest(
        vocabulary_sha256=FINGERPRINT,
        vocab_size=100,
        source={},
        dropped={},
        files={"train": summary},
    )
    write_manifest(tmp_path, manifest)
    return tmp_path


def test_parts_are_one_file_to_readers(joined):
    file = open_train(joined)
    expected = [*DOCUMENTS, *[[2, 40, 9]] * 3]
    assert [file.document(n).tolist() for n in range(file.num_documents)] == expected
    assert file.offsets.tolist() == [0, 4, 6, 12, 15, 18, 21]
    assert [len(part) for part in file.parts] == [4, 8, 9]
    assert not file.parts[0].flags.writeable


@pytest.mark.parametrize("name", ["../train.bin", "/etc/passwd", "a/../../b", "..\\x"])
def test_a_part_outside_the_folder_is_refused(folder, name):
    files = json.loads((folder / "manifest.json").read_text())["files"]
    files["train"]["parts"][0]["name"] = name
    edit_manifest(folder, files=files)
    with pytest.raises(ValueError, match="lies outside the folder"):
        open_train(folder)


@pytest.mark.parametrize("name", ["train.bin", "train.index.npy", "manifest.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        open_train(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"files": 3}', b"\xff"])
def test_a_damaged_manifest_is_refused(folder, content):
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match="manifest.json is damaged"):
        read_manifest(folder)


def test_another_format_version_is_refused(folder):
    edit_manifest(folder, format_version=3)
    with pytest.raises(ValueError, match="format 3"):
        open_train(folder)


def test_the_size_is_checked_before_anything_is_read(folder):
    cut_short(folder / "train.bin")
    with pytest.raises(ValueError, match="22 bytes instead of 24"):
        open_train(folder)


def test_an_exception_while_writing_leaves_the_old_file(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt),
        TokenFileWriter(folder, "train", vocab_size=9) as writer,
    ):
        write(writer, [1, 2], [2])
        raise KeyboardInterrupt
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path):
    def fail(content):
        raise OSError(errno.ENOSPC, "No space left on device")

    with (  # noqa: PT012
        pytest.raises(OSError, match="make room on the disk") as caught,
        TokenFileWriter(tmp_path, "train", vocab_size=9) as writer,
    ):
        closed_by_the_writer = writer._file
        writer._file = type("Full", (), {"write": staticmethod(fail), "close": lambda self: None})()
        closed_by_the_writer.close()
        write(writer, [1, 2], [2])
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ids", "lengths", "message"),
    [
        ([1, 2], [3], "must add up to 2"),
        ([1, 2], [2, 0], "be at least 1"),
    ],
)
def test_wrong_documents_are_refused(tmp_path, ids, lengths, message):
    with (  # noqa: PT012
        pytest.raises(ValueError, match=message),
        TokenFileWriter(tmp_path, "train", vocab_size=9) as writer,
    ):
        write(writer, [1, 2], [2])
        write(writer, ids, lengths)
    assert not list(tmp_path.iterdir())
