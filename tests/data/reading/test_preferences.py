"""Rows that hold pairs of answers."""

import logging

import numpy as np
import pytest
import torch

from dimgpt.config import PreferenceSourceConfig
from dimgpt.data.reading.finetuning import ConversationCorpus
from dimgpt.data.reading.preferences import PreferenceData
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.special_tokens import SPECIAL_TOKENS

CHAT = GreedyTokenizer([*SPECIAL_TOKENS, "a"]).chat
START, USER, ASSISTANT, END = 2, 7, 8, 9
GROUPS = [PreferenceSourceConfig(name=name, path="p", ratio=0.5) for name in ("one", "two")]
SHAPE = {"context_length": 12, "batch_size": 4, "accumulation_steps": 2, "seed": 0}


def pair(question, better, worse):
    return [USER, *question, ASSISTANT, *better, ASSISTANT, *worse]


@pytest.fixture
def corpus(tmp_path, write_files):
    long = pair([20] * 9, [21], [22])
    one = [pair([20], [21, 30 + n], [22, 23, 30 + n]) for n in range(4)]
    earlier = [USER, 40, ASSISTANT, 41, *pair([42], [43], [44])]
    for name, train in (("one", [*one, long]), ("two", [earlier])):
        write_files(tmp_path / name, {"train": train, "validation": train[:2]})
    return ConversationCorpus.open(tmp_path, GROUPS, "f" * 64)


def make_data(corpus):
    return PreferenceData(corpus, chat=CHAT, padding=0, **SHAPE)


def test_both_answers_stand_behind_the_conversation_and_count_alone(corpus):
    ids, weights = make_data(corpus).train.rows(np.array([0, 4]))
    assert ids[0].tolist() == [
        [START, USER, 20, ASSISTANT, 21, 30, END, 0, 0, 0],
        [START, USER, 20, ASSISTANT, 22, 23, 30, END, 0, 0],
    ]
    earlier = [START, USER, 40, ASSISTANT, 41, USER, 42, ASSISTANT]
    assert ids[1].tolist() == [[*earlier, 43, END], [*earlier, 44, END]]
    assert np.flatnonzero(weights[0, 0]).tolist() == [4, 5, 6]
    assert np.flatnonzero(weights[0, 1]).tolist() == [4, 5, 6, 7]
    # An earlier answer is the same on both sides, and does not count.
    assert np.flatnonzero(weights[1, 0]).tolist() == [8, 9]
    np.testing.assert_allclose(weights.sum(axis=(1, 2)), 1, rtol=1e-6)


def test_a_pair_that_is_too_long_is_left_out_and_counted(corpus, caplog):
    with caplog.at_level(logging.WARNING):
        data = make_data(corpus)
    assert len(data.train.pairs) == 5
    assert "one: 1 of 5 pairs do not fit into a row and are left out" in caplog.text
    with pytest.raises(ValueError, match="no pair of one fits into the context of 5 tokens"):
        PreferenceData(corpus, chat=CHAT, padding=0, **SHAPE | {"context_length": 5})


def test_every_row_comes_with_its_own_reference(corpus):
    data = make_data(corpus)
    assert data.batches(1)[0].reference is None
    data.train.reference = np.arange(10, dtype=np.float32).reshape(5, 2)
    known = {bytes(row): number for number in range(5) for row in [ids_of(data, number)]}
    batches = data.batches(3)
    assert [len(batch.inputs) for batch in batches] == [4, 4]
    for batch in batches:
        for row, reference in zip(batch.inputs, batch.reference, strict=True):
            number = known[bytes(crop(row))]
            assert reference.tolist() == [2 * number, 2 * number + 1]
    again = data.batches(3)
    assert all(torch.equal(one.inputs, two.inputs) for one, two in zip(batches, again, strict=True))


def ids_of(data, number):
    return crop(torch.from_numpy(data.train.rows(np.array([number]))[0][0, :, :-1]))


def crop(row):
    """Return a row of inputs without padding and ends, as bytes can compare it."""
    return row[(row != 0) & (row != END)].numpy().astype(np.uint8)


def test_the_order_of_all_pairs_is_that_of_the_reference(corpus):
    data = make_data(corpus)
    whole = [row for batch in data.train.batches(2) for row in batch.inputs]
    assert [bytes(crop(row)) for row in whole] == [bytes(ids_of(data, n)) for n in range(5)]
    assert sum(len(batch.inputs) for batch in data.train.batches(2, limit=3)) == 3
