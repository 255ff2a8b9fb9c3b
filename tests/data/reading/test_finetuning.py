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
