import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dimgpt.config import SourceConfig
from dimgpt.data.reading.pretraining import Corpus, PretrainingData

FINGERPRINT = "f" * 64
START, END = 2, 9
SHARED = Path(__file__).parents[3].parent / "shared" / "fixtures" / "dimensiongpt_data"
SOURCES = [SourceConfig(name="a", path="a", multiplier=2.0), SourceConfig(name="b", path="b")]


def make_documents(generator, base, count):
    """Documents whose tokens name their source and rise, so that a piece tells its place."""
    lengths = generator.integers(1, 40, count)
    return [[START, *range(base, base + length), END] for length in lengths]


@pytest.fixture
def corpus(tmp_path, write_files):
    generator = np.random.default_rng(0)
    for name, base in (("a", 100), ("b", 200)):
        splits = {
            split: make_documents(generator, base + extra, 50)
            for split, extra in (("train", 0), ("validation", 200))
        }
        write_files(tmp_path / name, splits, vocab_size=500)
    return Corpus.open(tmp_path, SOURCES, FINGERPRINT)


def make_data(corpus, **changes):
    settings = {"context_length": 64, "batch_size": 4, "accumulation_steps": 2, "seed": 0}
    return PretrainingData(corpus, **(settings | changes))


def rows_of(batches):
    return np.array(
        [
            [*inputs.tolist(), targets[-1].item()]
            for batch in batches
            for inputs, targets in zip(batch.inputs, batch.targets, strict=True)
        ]
    )


def test_batches_have_their_shapes_and_equal_weights(corpus):
    batches = make_data(corpus).batches(1)
    assert len(batches) == 2
    for batch in batches:
        assert batch.inputs.shape == batch.targets.shape == batch.weights.shape == (4, 64)
        assert batch.inputs.dtype == batch.targets.dtype == torch.int64
        assert batch.weights.dtype == torch.float32
        assert (batch.weights == 1).all()
        assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])


def test_a_step_depends_on_seed_and_number_alone(corpus):
    data, other = make_data(corpus), make_data(corpus)
    for step in (7, 3):
        data.batches(step)
    np.testing.assert_array_equal(rows_of(data.batches(5)), rows_of(other.batches(5)))
    assert (rows_of(data.batches(5)) != rows_of(data.batches(6))).any()
    assert (rows_of(data.batches(5)) != rows_of(make_data(corpus, seed=1).batches(5))).any()


@pytest.mark.parametrize(("batch_size", "accumulation_steps"), [(8, 1), (1, 8), (2, 4)])
def test_the_division_into_batches_changes_no_row(corpus, batch_size, accumulation_steps):
    divided = make_data(corpus, batch_size=batch_size, accumulation_steps=accumulation_steps)
    np.testing.assert_array_equal(
        rows_of(divided.batches(3)), rows_of(make_data(corpus).batches(3))
    )


def test_validation_is_the_same_each_time_and_of_its_own_split(corpus):
    data = make_data(corpus)
    first = rows_of(data.validation_batches(3))
    data.batches(1)
    np.testing.assert_array_equal(first, rows_of(data.validation_batches(3)))
    assert first.shape == (12, 65)
    assert set(first[first >= 100] // 100) == {3, 4}
    assert set(rows_of(data.batches(1)).ravel() // 100) == {0, 1, 2}


def test_a_window_is_the_end_of_a_document_and_then_whole_documents(corpus):
    known = {
        tuple(file.document(i).tolist())
        for file in corpus.train.files
        for i in range(file.num_documents)
    }
    for row in rows_of(make_data(corpus, batch_size=64).batches(1)):
        ends = np.flatnonzero(row == END) + 1
        first, *pieces = (piece.tolist() for piece in np.split(row, ends))
        assert any(document[-len(first) :] == tuple(first) for document in known)
        assert all(piece[0] == START for piece in pieces if piece)
        assert all(tuple(piece) in known for piece in pieces[:-1])


def test_windows_begin_anywhere_and_documents_follow_from_any_source(corpus):
    rows = rows_of(make_data(corpus, batch_size=500).batches(1))
    assert (rows[:, 0] != START).mean() > 0.5
    is_start = (rows[:, 1:-1] == START) & (rows[:, 2:] >= 100)
    followers = rows[:, 2:][is_start] // 100
    assert (followers == 1).mean() == pytest.approx(corpus.train.ratios[0], abs=0.04)


def test_a_document_longer_than_the_row_is_cut(tmp_path, write_files):
    long = [START, *range(100, 400), END]
    write_files(tmp_path / "a", {"train": [long], "validation": [long]}, vocab_size=500)
    corpus = Corpus.open(tmp_path, SOURCES[:1], FINGERPRINT)
    for row in rows_of(make_data(corpus).batches(1)):
        assert set(np.diff(row)) <= {1, START - END, 100 - START, END - 399}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared fixtures do not stand beside")
def test_the_original_windows_could_have_been_drawn_here(tmp_path, write_files):
    info = json.loads((SHARED / "info.json").read_text())
    for name in ("livres", "divers"):
        splits = {}
        for split, stem in (("train", "train"), ("validation", "val")):
            ids = np.fromfile(SHARED / "pretraining" / name / f"{stem}.bin", dtype="<u2")
            ends = np.flatnonzero(ids == END) + 1
            splits[split] = [document.tolist() for document in np.split(ids, ends) if len(document)]
        write_files(tmp_path / name, splits, vocab_size=2000)
    sources = [
        SourceConfig(name=name, path=name, multiplier=info["metadata"][name]["multiplier"])
        for name in ("livres", "divers")
    ]
    corpus = Corpus.open(tmp_path, sources, FINGERPRINT)
    assert corpus.train.ratios.tolist() == pytest.approx(info["probas"])
    for sample in info["pretraining_samples"]["samples"]:
        mixture = corpus.validation if sample["val"] else corpus.train
        documents = [
            file.document(i).tolist() for file in mixture.files for i in range(file.num_documents)
        ]
        ids = sample["tokens"]
        cut = ids.index(END) + 1 if END in ids else len(ids)
        texts = ["".join(map(chr, document)) for document in documents]
        assert any("".join(map(chr, ids[:cut])) in text for text in texts)
        assert cut == len(ids) or any("".join(map(chr, ids[cut:])) in text for text in texts)
        assert cut == len(ids) or ids[cut] == START
