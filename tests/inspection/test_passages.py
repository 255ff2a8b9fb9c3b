import numpy as np
import pytest

from dimgpt.data.token_file import Manifest, write_manifest
from dimgpt.data.token_writer import TokenFileWriter
from dimgpt.files import lock_file
from dimgpt.inspection.passages import Passage, PassageIndex, sort_suffixes

FINGERPRINT = "f" * 64
BOOKS = [[1, 5, 6, 7, 8, 2], [1, 5, 6, 9, 9, 9, 9, 2], [1, 7, 8, 9, 2]]
NEWS = [[1, 20, 21, 22, 23, 24, 25, 2]]


def contains(index, ids):
    return any(run.end - run.begin == len(ids) for run in index.longest(ids, min_tokens=1))


def write(folder, documents):
    folder.mkdir(exist_ok=True)
    with TokenFileWriter(folder, "train", vocab_size=100) as writer:
        writer.write_documents(
            np.concatenate(documents),
            np.array([len(document) for document in documents]),
            num_characters=1,
            num_bytes=1,
        )
    files = {"train": writer.summary}
    shape = {"vocabulary_sha256": FINGERPRINT, "vocab_size": 100}
    write_manifest(folder, Manifest(**shape, source={}, dropped={}, files=files))
    return folder


@pytest.fixture
def folders(tmp_path):
    return [write(tmp_path / "books", BOOKS), write(tmp_path / "news", NEWS)]


def open_index(folders):
    return PassageIndex.open(folders, fingerprint=FINGERPRINT)


@pytest.mark.parametrize(("vocab", "dtype"), [(1, "<u2"), (3, "<u2"), (65_535, "<u2"), (3, "<u4")])
@pytest.mark.parametrize("length", [1, 2, 5, 257])
def test_suffixes_are_sorted_as_python_sorts_them(vocab, dtype, length):
    ids = np.random.default_rng(0).integers(vocab, size=length).astype(dtype)
    texts = ids.tolist()
    expected = sorted(range(length), key=lambda place: texts[place:])
    assert sort_suffixes(ids).tolist() == expected


def test_the_longest_passages_are_found_with_source_document_and_place(folders):
    found = open_index(folders).longest([40, 5, 6, 9, 9, 41, 22, 23, 24], min_tokens=3)
    assert found == [
        Passage(begin=1, end=5, source="books", document=1, place=1),
        Passage(begin=6, end=9, source="news", document=0, place=3),
    ]


def test_runs_are_those_that_a_plain_search_finds(folders):
    index, generator = open_index(folders), np.random.default_rng(1)
    documents = [document for source in (BOOKS, NEWS) for document in source]
    pieces = {tuple(d[i:j]) for d in documents for i in range(len(d)) for j in range(i + 1, 9)}
    for _ in range(50):
        ids = generator.choice([1, 2, 5, 6, 7, 8, 9, 20, 21], size=12).tolist()
        ends = [
            max([j for j in range(i + 1, 13) if tuple(ids[i:j]) in pieces], default=i)
            for i in range(12)
        ]
        expected = [
            (i, end) for i, end in enumerate(ends) if end - i >= 2 and end > max([0, *ends[:i]])
        ]
        found = index.longest(ids, min_tokens=2)
        assert [(run.begin, run.end) for run in found] == expected
        for run in found:
            document = index.document(run)
            copied = document[run.place : run.place + run.end - run.begin]
            assert copied.tolist() == ids[run.begin : run.end]


def test_no_passage_crosses_the_border_of_a_document(folders):
    found = open_index(folders).longest([7, 8, 2, 1, 5, 6], min_tokens=2)
    assert [(run.begin, run.end) for run in found] == [(0, 3), (3, 6)]


def test_long_runs_and_texts_of_one_token_repeated_are_found(tmp_path):
    index = open_index([write(tmp_path / "long", [[1, *[7] * 300, 2], [1, *range(3, 99), 2]])])
    assert [(run.begin, run.end) for run in index.longest([7] * 200)] == [(0, 200)]
    assert [(run.begin, run.end) for run in index.longest([0, *range(3, 99), 0])] == [(1, 97)]


def test_a_whole_text_is_contained_or_not(folders):
    index = open_index(folders)
    assert contains(index, [5, 6, 9, 9])
    assert not contains(index, [5, 6, 9, 8])
    assert not contains(index, [])
    assert index.longest([], min_tokens=1) == []


def test_the_sorted_places_are_kept_and_made_again_for_other_documents(folders, monkeypatch):
    open_index(folders)
    (kept,) = folders[0].glob("*.suffixes.npy")
    with monkeypatch.context() as patch:
        patch.setattr("dimgpt.inspection.passages.sort_suffixes", None)
        assert contains(open_index(folders), [5, 6, 7])  # nothing is sorted again
    kept.write_bytes(kept.read_bytes()[:-3])
    assert contains(open_index(folders), [5, 6, 7])
    write(folders[0], [[1, 50, 51, 2]])
    index = open_index(folders)
    assert contains(index, [50, 51])
    assert not contains(index, [5, 6, 7])
    assert len(list(folders[0].glob("*.suffixes.npy"))) == 1


def test_while_another_process_saves_the_places_they_are_used_and_not_saved(folders, caplog):
    with lock_file(folders[0] / "train.suffixes.lock", refusal="held by the test"):
        index = open_index(folders)
    assert contains(index, [5, 6, 7])
    assert not list(folders[0].glob("*.suffixes.npy"))
    assert "another process saves it" in caplog.text
    open_index(folders)
    assert len(list(folders[0].glob("*.suffixes.npy"))) == 1
