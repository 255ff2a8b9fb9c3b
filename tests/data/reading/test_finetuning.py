import dataclasses

import numpy as np
import pytest
import torch

from dimgpt.config import ConversationSourceConfig
from dimgpt.data.conversation import loss_weights
from dimgpt.data.reading.finetuning import ConversationCorpus, FinetuningData
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.special_tokens import SPECIAL_TOKENS

CHAT = GreedyTokenizer([*SPECIAL_TOKENS, "a"]).chat
FINGERPRINT = "f" * 64
START, HUMAN, SYSTEM, USER, ASSISTANT, END = 2, 5, 6, 7, 8, 9
GROUPS = [
    ConversationSourceConfig(
        name="people",
        path="p",
        ratio=0.2,
        system_prompts_path="p",
        system_prompt_ratios={"people": 0.3},
    ),
    ConversationSourceConfig(
        name="chat",
        path="c",
        ratio=0.8,
        system_prompts_path="p",
        system_prompt_ratios={"chat": 0.5, "people": 0.4},
    ),
]


def make_conversation(generator, base, roles):
    turns = [
        [role, *generator.integers(base, base + 50, generator.integers(1, 12)).tolist()]
        for role in roles
    ]
    return sum(turns, [])


@pytest.fixture
def corpus(tmp_path, write_files):
    generator = np.random.default_rng(0)
    for name, base, roles in (("people", 100, [HUMAN] * 3), ("chat", 200, [USER, ASSISTANT] * 2)):
        splits = {
            split: [make_conversation(generator, base + extra, roles) for _ in range(30)]
            for split, extra in (("train", 0), ("validation", 50))
        }
        prompts = [[SYSTEM, base // 10 + n, base // 10 + n] for n in range(3)]
        write_files(tmp_path / name, {**splits, "system_prompts": prompts}, vocab_size=500)
    return ConversationCorpus.open(tmp_path, GROUPS, FINGERPRINT)


def make_data(corpus, **changes):
    settings = {
        "chat": CHAT,
        "context_length": 64,
        "batch_size": 4,
        "accumulation_steps": 2,
        "instruction_weight": 0.1,
        "seed": 0,
    }
    return FinetuningData(corpus, **(settings | changes))


def rows_of(batches):
    ids = torch.cat([torch.cat([b.inputs, b.targets[:, -1:]], dim=1) for b in batches]).numpy()
    return ids, torch.cat([b.weights for b in batches]).numpy()


def documents_in(rows):
    """Split rows into their pieces: the first one begun anywhere, the last one perhaps cut."""
    return [np.split(row, np.flatnonzero(row == END) + 1) for row in rows]


def conversations_of(corpus, split):
    return {
        tuple(file.document(i).tolist()) for file in split.files for i in range(file.num_documents)
    }


def strip(document):
    """Take the start, the system prompt and the end off a document of the corpus above."""
    document = document[1:-1]
    return tuple(document[3:] if document[0] == SYSTEM else document)


def test_whole_documents_are_start_prompt_conversation_end(corpus):
    rows, _ = rows_of(make_data(corpus, batch_size=200).batches(1))
    known = conversations_of(corpus, corpus.train)
    whole = [piece.tolist() for pieces in documents_in(rows) for piece in pieces[1:-1]]
    assert len(whole) > 100
    for document in whole:
        assert document[0] == START
        assert strip(document) in known


def test_groups_and_system_prompts_are_drawn_by_their_shares(corpus):
    rows, _ = rows_of(make_data(corpus, batch_size=1500).batches(1))
    # The second piece of a row is a newly drawn document, nearly always complete to its prompt.
    seconds = [pieces[1][:8].tolist() for pieces in documents_in(rows) if len(pieces) > 1]
    seconds = [document for document in seconds if len(document) == 8]
    chats = [document for document in seconds if USER in document]
    people = [document for document in seconds if HUMAN in document]
    assert len(chats) / len(seconds) == pytest.approx(0.8, abs=0.05)
    for documents, shares in ((chats, (0.4, 0.5)), (people, (0.3, 0.0))):
        owners = [document[2] // 10 if document[1] == SYSTEM else 0 for document in documents]
        found = (np.mean(np.equal(owners, 1)), np.mean(np.equal(owners, 2)))
        assert found == pytest.approx(shares, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("is_validation", [False, True])
def test_weights_are_those_of_each_whole_document(corpus, is_validation):
    """Also for the document that a row begins inside: find it, weigh it whole, compare."""
    data = make_data(corpus, batch_size=100)
    rows, weights = rows_of(data.validation_batches(2) if is_validation else data.batches(1))
    split = corpus.validation if is_validation else corpus.train
    instruction_weight = 0.0 if is_validation else 0.1
    known = [[START, *ids, END] for ids in conversations_of(corpus, split)]
    num_found = 0
    for row, found in zip(rows, weights, strict=True):
        first, *_ = documents_in(row[None])[0]
        whole = [ids for ids in known if ids[-len(first) :] == first.tolist()]
        if len(whole) == 1:  # else it begins in its prompt, or in what several have in common
            expected = loss_weights(whole[0], CHAT, instruction_weight=instruction_weight)[
                -len(first) :
            ]
            np.testing.assert_array_equal(found[: len(first) - 1], expected[1:])
            num_found += 1
        rest = row[len(first) :]
        expected = loss_weights(rest, CHAT, instruction_weight=instruction_weight)
        np.testing.assert_array_equal(found[len(first) - 1 :], expected)
    assert num_found > 50


def test_rows_begin_anywhere_in_a_document(corpus):
    rows, _ = rows_of(make_data(corpus, batch_size=500).batches(1))
    assert 0.9 < (rows[:, 0] != START).mean() < 1
    assert (rows[:, 0] == END).any()


def test_long_conversations_are_drawn_in_proportion_to_their_tokens(tmp_path, write_files):
    splits = {"train": [[USER, 20], [USER, *[30] * 5]], "validation": [[USER, 20]]}
    write_files(tmp_path / "chat", splits)
    group = ConversationSourceConfig(name="chat", path="c")
    corpus = ConversationCorpus.open(tmp_path, [group], FINGERPRINT)
    rows, _ = rows_of(make_data(corpus, batch_size=500).batches(1))
    inner = rows[:, 10:]
    after = inner[:, 1:][inner[:, :-1] == USER]
    assert (after == 30).mean() == pytest.approx(0.75, abs=0.02)


def test_a_step_depends_on_seed_and_number_alone(corpus):
    data, divided = make_data(corpus), make_data(corpus, batch_size=1, accumulation_steps=8)
    data.batches(1)
    for first, second in zip(rows_of(data.batches(5)), rows_of(divided.batches(5)), strict=True):
        np.testing.assert_array_equal(first, second)
    assert (rows_of(data.batches(5))[0] != rows_of(data.batches(6))[0]).any()


def test_validation_is_the_same_each_time_and_of_its_own_split(corpus):
    data = make_data(corpus)
    first, second = (rows_of(data.validation_batches(2))[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    texts = first[first >= 100]
    assert ((texts % 100) >= 50).all()


def test_conversations_without_any_turn_are_read_with_the_instruction_weight(tmp_path, write_files):
    write_files(tmp_path / "chat", {"train": [[SYSTEM, 20]], "validation": [[SYSTEM, 20]]})
    group = ConversationSourceConfig(name="chat", path="c")
    corpus = ConversationCorpus.open(tmp_path, [group], FINGERPRINT)
    _, weights = rows_of(make_data(corpus).batches(1))
    assert weights == pytest.approx(0.1)


def make_lengths(tmp_path, write_files):
    """Conversations of 2 and of 18 tokens: 1 to 9."""
    splits = {"train": [[USER, 20], [USER, *[30] * 17]], "validation": [[USER, 20]]}
    write_files(tmp_path / "chat", splits)
    group = ConversationSourceConfig(name="chat", path="c")
    return ConversationCorpus.open(tmp_path, [group], FINGERPRINT)


@pytest.mark.slow
@pytest.mark.parametrize(("is_later_uniform", "share"), [(False, 0.9), (True, 0.5)])
def test_later_conversations_are_drawn_by_length_or_uniformly(
    tmp_path, write_files, is_later_uniform, share
):
    corpus = make_lengths(tmp_path, write_files)
    data = make_data(corpus, batch_size=2_000, is_later_uniform=is_later_uniform)
    rows, _ = rows_of(data.batches(1))
    # The first one has lost its beginning: the token before its end says which one it is.
    firsts = [pieces[0] for pieces in documents_in(rows)]
    is_long = np.array([piece[-2] == 30 for piece in firsts if len(piece) > 1])
    # The offset lies before the end in 19 of 20 and in 3 of 4 cases.
    long, short = 0.9 * 19 / 20, 0.1 * 3 / 4
    expected = long / (long + short)
    deviation = np.sqrt(expected * (1 - expected) / len(is_long))
    assert is_long.mean() == pytest.approx(expected, abs=4 * deviation)
    # Only the second document: which ones follow in a full row depends on their lengths.
    seconds = np.array([pieces[1][2] == 30 for pieces in documents_in(rows)])
    deviation = np.sqrt(share * (1 - share) / len(seconds))
    assert seconds.mean() == pytest.approx(share, abs=4 * deviation)


def with_one_held_out(folder):
    groups = [dataclasses.replace(GROUPS[0], validation_ratio=0.0), GROUPS[1]]
    return ConversationCorpus.open(folder, groups, FINGERPRINT)


def test_later_groups_are_drawn_anew(corpus):
    rows, _ = rows_of(make_data(corpus, batch_size=1_500, is_later_uniform=True).batches(1))
    seconds = [pieces[1] for pieces in documents_in(rows) if len(pieces) > 1]
    seconds = [piece for piece in seconds if len(piece) > 8]
    share = np.mean([USER in piece for piece in seconds])
    assert share == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / len(seconds)))


def test_validation_draws_only_groups_that_hold_something_out(corpus, tmp_path):
    data = make_data(with_one_held_out(tmp_path), batch_size=200)
    rows, _ = rows_of(data.validation_batches(1))
    assert not (rows == HUMAN).any()
    assert (rows == ASSISTANT).any()
    training, _ = rows_of(data.batches(1))
    np.testing.assert_array_equal(
        training, rows_of(make_data(corpus, batch_size=200).batches(1))[0]
    )


def test_a_fixed_prompt_follows_each_start_in_validation_and_none_in_training(corpus, tmp_path):
    fixed = [SYSTEM, 90, 91, 92]
    data = make_data(
        with_one_held_out(tmp_path), batch_size=200, validation_prompts={"chat": fixed}
    )
    rows, weights = rows_of(data.validation_batches(1))
    starts = [(row, int(at)) for row in rows for at in np.flatnonzero(row == START)]
    assert len(starts) > 200
    for row, at in starts:
        assert row[at + 1 : at + 5].tolist() == fixed[: len(row) - at - 1]
    assert not (rows[:, 1:][weights > 0] == 91).any()
    training, _ = rows_of(data.batches(1))
    assert not (training == 91).any()


def test_a_fixed_prompt_of_one_group_leaves_the_others_theirs(corpus):
    data = make_data(corpus, batch_size=800, validation_prompts={"chat": [SYSTEM, 91]})
    rows, _ = rows_of(data.validation_batches(1))
    seconds = [pieces[1].tolist() for pieces in documents_in(rows) if len(pieces) > 1]
    seconds = [document for document in seconds if len(document) > 8]
    chats = [document for document in seconds if USER in document]
    people = [document for document in seconds if HUMAN in document]
    assert all(document[1:3] == [SYSTEM, 91] for document in chats)
    prompted = np.mean([document[1] == SYSTEM for document in people])
    assert prompted == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / len(people)))
    assert not any(91 in document for document in people)
