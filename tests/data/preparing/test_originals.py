import json
import pickle
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dimgpt.data.conversation import Message, encode_message
from dimgpt.data.preparing.originals import convert_dimensiongpt_data
from dimgpt.data.reading.finetuning import ConversationCorpus, FinetuningData
from dimgpt.data.reading.pretraining import Corpus
from dimgpt.data.token_file import TokenFile
from dimgpt.presets.sources import DIMENSIONGPT_CONVERSATIONS, DIMENSIONGPT_SYSTEM_PROMPT
from dimgpt.settings import override
from dimgpt.text.greedy_tokenizer import GreedyTokenizer

SHARED = Path(__file__).parents[4] / "shared" / "fixtures"
FIXTURE = SHARED / "dimensiongpt_data"
needs_fixture = pytest.mark.skipif(
    not FIXTURE.is_dir(), reason="the original's files are not beside the checkout"
)
START, END, USER, ASSISTANT, SYSTEM = 2, 9, 7, 8, 6


def write_source(folder, splits, *, multiplier=1.0, sizes=None):
    """Write a source as the original does: split -> documents of ids without start and end."""
    folder.mkdir(parents=True)
    found = {"train": 0, "val": 0}
    for name, documents in splits.items():
        wrapped = [[START, *ids, END] for ids in documents]
        starts = np.cumsum([0, *map(len, wrapped)]).tolist()
        index = [
            {"start": start, "size": len(ids)} for start, ids in zip(starts, wrapped, strict=False)
        ]
        np.array([id for ids in wrapped for id in ids], dtype="<u2").tofile(folder / f"{name}.bin")
        (folder / f"{name}_ids.pkl").write_bytes(pickle.dumps(index))
        found[name] = starts[-1]
    metadata = {"training_part": "pretraining", "name": folder.name, "size": sizes or found}
    content = pickle.dumps(metadata | {"multiplier": multiplier})
    (folder / "metadata.pkl").write_bytes(content)
    return folder


def write_group(folder, group, kind, documents):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{group}_{kind}.pkl").write_bytes(pickle.dumps(documents))


@pytest.fixture
def data(tmp_path):
    """A data folder of the original with one source and one group."""
    splits = {"train": [[20, 21], [22], [23, 24, 25]], "val": [[26, 27]]}
    write_source(tmp_path / "data" / "pretraining" / "web", splits, multiplier=0.3)
    folder = tmp_path / "data" / "finetuning"
    write_group(folder, "chat", "conversations_train", [[USER, 20, ASSISTANT, 21], [USER, 22]])
    write_group(folder, "chat", "conversations_val", [[USER, 23, ASSISTANT, 24]])
    write_group(folder, "chat", "preprompts_train", [[SYSTEM, 25, 26]])
    return tmp_path / "data"


def documents_of(folder, name, tokenizer):
    file = TokenFile(folder, name, fingerprint=tokenizer.fingerprint)
    return [file.document(index).tolist() for index in range(file.num_documents)]


def test_a_data_folder_is_opened_with_its_multipliers_and_system_prompts(data, tmp_path, tokenizer):
    target = tmp_path / "new"
    (source,), (group,) = convert_dimensiongpt_data(data, target, tokenizer)
    assert (source.name, source.multiplier) == ("web", 0.3)
    web, chat = target / "pretraining" / "web", target / "finetuning" / "chat"
    assert documents_of(web, "train", tokenizer) == [
        [START, 20, 21, END],
        [START, 22, END],
        [START, 23, 24, 25, END],
    ]
    assert documents_of(web, "validation", tokenizer) == [[START, 26, 27, END]]
    assert documents_of(chat, "train", tokenizer) == [[USER, 20, ASSISTANT, 21], [USER, 22]]
    assert documents_of(chat, "validation", tokenizer) == [[USER, 23, ASSISTANT, 24]]
    assert documents_of(chat, "system_prompts", tokenizer) == [[SYSTEM, 25, 26]]
    Corpus.open(target / "pretraining", [source], tokenizer.fingerprint)
    ConversationCorpus.open(target / "finetuning", [group], tokenizer.fingerprint)


def test_characters_and_bytes_are_those_of_the_cleaned_text(data, tmp_path, tokenizer):
    convert_dimensiongpt_data(data, tmp_path / "new", tokenizer)
    folder = tmp_path / "new" / "pretraining" / "web"
    file = TokenFile(folder, "train", fingerprint=tokenizer.fingerprint)
    text = tokenizer.decode([20, 21, 22, 23, 24, 25])
    assert file.summary.num_characters == len(text)
    assert file.summary.num_bytes == len(text.encode())


@pytest.mark.parametrize("num_documents", [2, 3, 2500])
def test_where_nothing_was_kept_for_validation_the_last_document_is(
    tmp_path, tokenizer, num_documents
):
    documents = [[USER, 20 + number % 20] for number in range(num_documents)]
    write_group(tmp_path / "finetuning", "human", "conversations_train", documents)
    write_source(tmp_path / "pretraining" / "web", {"train": [[20], [21, 22]]})
    convert_dimensiongpt_data(tmp_path, tmp_path / "new", tokenizer)
    human, web = tmp_path / "new/finetuning/human", tmp_path / "new/pretraining/web"
    assert documents_of(human, "train", tokenizer) == documents[:-1]
    assert documents_of(human, "validation", tokenizer) == documents[-1:]
    assert documents_of(web, "train", tokenizer) == [[START, 20, END]]
    assert documents_of(web, "validation", tokenizer) == [[START, 21, 22, END]]


def test_an_empty_file_of_validation_counts_as_none(data, tmp_path, tokenizer):
    write_group(data / "finetuning", "chat", "conversations_val", [])
    convert_dimensiongpt_data(data, tmp_path / "new", tokenizer)
    chat = tmp_path / "new" / "finetuning" / "chat"
    assert documents_of(chat, "train", tokenizer) == [[USER, 20, ASSISTANT, 21]]
    assert documents_of(chat, "validation", tokenizer) == [[USER, 22]]


@pytest.mark.parametrize("documents", [[], [[USER, 20]]])
def test_too_little_to_split_is_refused(tmp_path, tokenizer, documents):
    write_group(tmp_path / "finetuning", "human", "conversations_train", documents)
    with pytest.raises(
        ValueError, match=r"human_conversations_train\.pkl has less than 2 documents"
    ):
        convert_dimensiongpt_data(tmp_path, tmp_path / "new", tokenizer)


def spoil(data, name, change):
    path = data / name
    path.write_bytes(change(path.read_bytes()))


WEB = "pretraining/web/"
DAMAGES = {
    "truncated tokens": (WEB + "train.bin", lambda old: old[:-2], "where its .bin ends"),
    "odd tokens": (WEB + "train.bin", lambda old: old[:-1], "where its .bin ends"),
    "more tokens": (WEB + "train.bin", lambda old: old + b"\2\0", "is longer than train_ids.pkl"),
    "swapped tokens": (
        WEB + "train.bin",
        lambda old: old[::-1],
        "lacks start-of-text or end-of-text",
    ),
    "zero tokens": (WEB + "train.bin", lambda old: bytes(len(old)), "lacks start-of-text"),
    "id outside": (
        WEB + "train.bin",
        lambda old: old.replace(b"\x14\x00", b"\xff\x7f"),
        "outside the vocabulary",
    ),
    "truncated index": (WEB + "train_ids.pkl", lambda old: old[:-5], "cut short, damaged or"),
    "empty index": (WEB + "train_ids.pkl", lambda old: b"", "cut short, damaged or"),
    "index of a dictionary": (
        WEB + "train_ids.pkl",
        lambda old: pickle.dumps({"a": [1]}),
        "train_ids.pkl holds a dict, not a list",
    ),
    "index of none": (WEB + "train_ids.pkl", lambda old: pickle.dumps([]), "is longer than"),
    "index with a gap": (
        WEB + "train_ids.pkl",
        lambda old: pickle.dumps([{"start": 1, "size": 4}]),
        "should start at 0",
    ),
    "index without sizes": (
        WEB + "train_ids.pkl",
        lambda old: pickle.dumps([{"start": 0, "size": "a\nb"}]),
        "should start at 0",
    ),
    "negative size": (
        WEB + "train_ids.pkl",
        lambda old: pickle.dumps([{"start": 0, "size": -4}]),
        "should start at 0",
    ),
    "endless size": (
        WEB + "train_ids.pkl",
        lambda old: pickle.dumps([{"start": 0, "size": (1 << 63) - 1}]),
        "where its .bin ends",
    ),
    "index of numbers": (WEB + "train_ids.pkl", lambda old: pickle.dumps([4, 3]), "should start"),
    "other sizes": (
        WEB + "metadata.pkl",
        lambda old: pickle.dumps({"size": {"train": 3, "val": 4}, "multiplier": 1.0}),
        "files of two runs are mixed",
    ),
    "no sizes": (
        WEB + "metadata.pkl",
        lambda old: pickle.dumps({"size": []}),
        "has no sizes and multiplier",
    ),
    "infinite size": (
        WEB + "metadata.pkl",
        lambda old: pickle.dumps({"size": {"train": float("inf"), "val": 0}, "multiplier": 1}),
        "has no sizes and multiplier",
    ),
    "no multiplier": (
        WEB + "metadata.pkl",
        lambda old: pickle.dumps({"size": {"train": 1, "val": 1}, "multiplier": -1.0}),
        "has no sizes and multiplier",
    ),
    "code": (WEB + "metadata.pkl", lambda old: b"cos\nsystem\n(S'x'\ntR.", "none was run"),
    "conversations of text": (
        "finetuning/chat_conversations_train.pkl",
        lambda old: pickle.dumps([["a"]]),
        "values that are no lists of ids",
    ),
    "negative id": (
        "finetuning/chat_conversations_train.pkl",
        lambda old: pickle.dumps([[-1]]),
        "values that are no lists of ids",
    ),
    "empty conversation": (
        "finetuning/chat_conversations_val.pkl",
        lambda old: pickle.dumps([[]]),
        "values that are no lists of ids",
    ),
    "id outside a conversation": (
        "finetuning/chat_preprompts_train.pkl",
        lambda old: pickle.dumps([[SYSTEM, 5000]]),
        "outside the vocabulary",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_refused_in_one_line_and_what_was_there_before_stays(
    data, tmp_path, tokenizer, name
):
    file, change, message = DAMAGES[name]
    target = tmp_path / "new"
    convert_dimensiongpt_data(data, target, tokenizer)
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    spoil(data, file, change)
    with pytest.raises(ValueError, match=message) as caught:
        convert_dimensiongpt_data(data, target, tokenizer)
    assert "\n" not in str(caught.value)
    after = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert {path.name for path in after} == {path.name for path in before}
    spoilt = target / ("pretraining/web" if file.startswith(WEB) else "finetuning/chat")
    assert all(after[path] == before[path] for path in before if path.is_relative_to(spoilt))


@pytest.mark.parametrize("name", ["train.bin", "val.bin", "train_ids.pkl", "val_ids.pkl"])
def test_a_missing_file_is_named(data, tmp_path, tokenizer, name):
    (data / WEB / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{name} is missing"):
        convert_dimensiongpt_data(data, tmp_path / "new", tokenizer)


def test_a_folder_without_such_files_says_what_is_looked_for(tmp_path, tokenizer):
    with pytest.raises(FileNotFoundError, match="give the data folder of the original"):
        convert_dimensiongpt_data(tmp_path, tmp_path / "new", tokenizer)


def test_a_group_cannot_write_outside_its_folder(tmp_path, tokenizer):
    write_group(tmp_path / "finetuning", "..", "conversations_train", [[USER, 20], [USER, 21]])
    with pytest.raises(ValueError, match="it names a folder"):
        convert_dimensiongpt_data(tmp_path, tmp_path / "new", tokenizer)


@needs_fixture
def test_files_that_the_original_wrote_are_opened_as_it_describes_them(tmp_path):
    info = json.loads((FIXTURE / "info.json").read_text(encoding="utf-8"))
    tokenizer = GreedyTokenizer.load(SHARED / "dimensiongpt_tokenizer" / "vocab.txt")
    sources, groups = convert_dimensiongpt_data(FIXTURE, tmp_path, tokenizer)
    corpus = Corpus.open(tmp_path / "pretraining", sources, tokenizer.fingerprint)
    names = [source.name for source in sources]
    ratios = dict(zip(names, corpus.train.ratios.tolist(), strict=True))
    assert [ratios[name] for name in info["dataset_order_listdir"]] == pytest.approx(info["probas"])
    for source, train, validation in zip(
        sources, corpus.train.files, corpus.validation.files, strict=True
    ):
        described = info["metadata"][source.name]
        assert source.multiplier == described["multiplier"]
        assert described["size"] == {"train": train.num_tokens, "val": validation.num_tokens}
    books = corpus.train.files[names.index("livres")]
    assert books.parts[0][:40].tolist() == info["train_bin_head_uint16"]
    heads = [{"start": int(books.offsets[i]), "size": len(books.document(i))} for i in range(3)]
    assert heads == info["train_ids_head"]
    original = (FIXTURE / "pretraining" / "livres" / "train.bin").read_bytes()
    assert books.parts[0].tobytes() == original
    conversations = ConversationCorpus.open(tmp_path / "finetuning", groups, tokenizer.fingerprint)
    train = sum(file.num_tokens for file in conversations.train.files)
    (held_out,) = conversations.validation.files
    assert [group.name for group in conversations.validated] == ["chatbot"]
    assert [group.name for group in groups] == ["chatbot", "dimension_gpt", "human"]
    first = conversations.train.files[0].document(0)
    assert "Combien font 6 + 6 ?" in tokenizer.decode(first)
    assert (train, held_out.num_tokens) == (info["ft_train_size"], info["ft_val_size"])


@needs_fixture
def test_rows_of_its_conversations_are_those_that_the_original_could_draw(tmp_path):
    """Its groups, prompts and pieces; validation stands behind its one prompt."""
    info = json.loads((FIXTURE / "info.json").read_text(encoding="utf-8"))
    tokenizer = GreedyTokenizer.load(SHARED / "dimensiongpt_tokenizer" / "vocab.txt")
    _, groups = convert_dimensiongpt_data(FIXTURE, tmp_path, tokenizer)
    published = {group.name: group for group in DIMENSIONGPT_CONVERSATIONS}
    groups = [
        override(
            group,
            ratio=published[group.name].ratio,
            system_prompt_ratios=published[group.name].system_prompt_ratios,
        )
        for group in groups
    ]
    fixed = encode_message(Message(role="system", text=DIMENSIONGPT_SYSTEM_PROMPT), tokenizer)
    assert fixed == info["final_preprompt"]
    data = FinetuningData(
        ConversationCorpus.open(tmp_path / "finetuning", groups, tokenizer.fingerprint),
        chat=tokenizer.chat,
        instruction_weight=0.1,
        is_later_uniform=True,
        validation_prompts={"chatbot": fixed},
        context_length=64,
        batch_size=400,
        accumulation_steps=1,
        seed=0,
    )
    for batches, is_validation in ((data.batches(1), False), (data.validation_batches(1), True)):
        ours = {tuple(pair) for row in batches[0].inputs.tolist() for pair in pairwise(row)}
        theirs = [
            sample["tokens"]
            for sample in info["finetuning_samples"]["samples"]
            if sample["val"] == is_validation
        ]
        assert theirs
        assert {pair for row in theirs for pair in pairwise(row)} <= ours


@needs_fixture
def test_the_originals_are_left_as_they_are(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(FIXTURE, copy)
    tokenizer = GreedyTokenizer.load(SHARED / "dimensiongpt_tokenizer" / "vocab.txt")
    convert_dimensiongpt_data(copy, tmp_path / "new", tokenizer)
    for path in FIXTURE.rglob("*"):
        if path.is_file():
            assert (copy / path.relative_to(FIXTURE)).read_bytes() == path.read_bytes()
