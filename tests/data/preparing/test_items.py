import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.data.conversation import Message
from dimgpt.data.preparing.items import read_conversations, read_documents
from dimgpt.text.detokenizing import detokenize


def read(path, **settings):
    return list(read_documents(SourceConfig(name="x", path=str(path), **settings)))


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.txt").write_bytes("\ufeffté\r\nb".encode())
    (tmp_path / "a.jsonl").write_bytes(lines({"text": "one"}, {"text": "two"}) + b"\n")
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines({"text": "three"})))
    table = pyarrow.table({"id": [1, 2], "text": ["four", "five"]})
    pyarrow.parquet.write_table(table, tmp_path / "d.parquet")
    (tmp_path / "README.md").write_text("not a document")
    assert read(tmp_path) == ["one", "two", "té\nb", "three", "four", "five"]


def test_a_source_is_cleaned_by_its_own_rule_whatever_its_form(tmp_path):
    (tmp_path / "a.txt").write_text("un , deux")
    (tmp_path / "b.jsonl").write_bytes(lines({"text": "( trois )"}))
    assert read(tmp_path, cleaning="detokenize") == ["un, deux", "(trois)"]
    assert read(tmp_path) == ["un , deux", "( trois )"]
    template = {"text_template": "{text} .", "cleaning": "detokenize"}
    assert read(tmp_path / "b.jsonl", **template) == ["(trois)."]
    plain, cleaned = (read("demo://stories/50", cleaning=rule) for rule in ("none", "detokenize"))
    assert cleaned == [detokenize(text) for text in plain]


def test_another_column_is_read(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines({"text": "no", "body": "yes"}))
    assert read(tmp_path / "a.jsonl", text_column="body") == ["yes"]


def test_a_missing_column_lists_those_found(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines({"title": "t", "body": "b"}))
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1 has no 'text': it has 'title', 'body'"):
        read(tmp_path)
    pyarrow.parquet.write_table(pyarrow.table({"body": ["b"]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet, row 1 has no 'text': it has 'body'"):
        read(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text": ', "line 2 is not JSON"),
        (b'{"text": "\xff"}\n', "line 1 is not JSON"),
        (b"[" * 100_000, "line 1 is not JSON"),
        (b"3\n", "line 1 is a JSON int"),
        (b'{"text": null}\n', "line 1: 'text' is null"),
        (b"", "holds no document"),
    ],
)
def test_a_bad_json_file_is_named_with_its_line(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.jsonl")


@pytest.mark.parametrize("num_bytes", [5, -4, -20])
def test_a_truncated_gzip_is_named(tmp_path, num_bytes):
    content = gzip.compress(lines(*({"text": f"document {i}"} for i in range(100))))
    (tmp_path / "a.jsonl.gz").write_bytes(content[:num_bytes])
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz is cut short or damaged after line \d+"):
        read(tmp_path)


def test_a_truncated_parquet_file_is_named(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"] * 100}), tmp_path / "a.parquet")
    content = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[:-10])
    with pytest.raises(ValueError, match=r"a\.parquet is cut short or damaged"):
        read(tmp_path)


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["", "a.pdf"])
def test_a_path_without_readable_files_says_what_is_read(tmp_path, name):
    (tmp_path / "a.pdf").write_bytes(b"")
    with pytest.raises(ValueError, match=r"usable are \.txt, \.jsonl"):
        read(tmp_path / name)


@pytest.mark.parametrize("path", ["demo://stories", "demo://stories/many", "ftp://x", "hf://x"])
def test_an_unknown_address_says_which_are_known(path):
    with pytest.raises(ValueError, match="it must be"):
        read(path)


def test_a_demo_is_the_same_for_the_same_seed():
    source = SourceConfig(name="x", path="demo://stories/5")
    documents = [list(read_documents(source, seed=seed)) for seed in (1, 1, 2)]
    assert len(documents[0]) == 5
    assert documents[0] == documents[1] != documents[2]
    conversations = ConversationSourceConfig(name="x", path="demo://conversations/5")
    assert len(list(read_conversations(conversations, seed=1))) == 5


def read_turns(path):
    source = ConversationSourceConfig(name="x", path=str(path))
    return [list(conversation.messages) for conversation in read_conversations(source)]


def test_files_of_two_formats_are_read_together(tmp_path):
    said = ("a", "b"), ("c", "d")
    roles, names = ("user", "assistant"), (("conversation", "text"), ("messages", "content"))
    for number, ((name, text), texts) in enumerate(zip(names, said, strict=True)):
        turns = [{"role": role, text: one} for role, one in zip(roles, texts, strict=True)]
        (tmp_path / f"{number}.jsonl").write_bytes(lines({name: turns, "id": 3}))
    assert read_turns(tmp_path) == [
        [Message(role=role, text=one) for role, one in zip(roles, texts, strict=True)]
        for texts in said
    ]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "a"}, "is not a conversation: it has 'text'"),
        ({"messages": "a"}, "not a list"),
        ({"conversation": [{"text": "a"}]}, "has no 'role'"),
    ],
)
def test_a_record_that_is_no_conversation_is_named(tmp_path, record, message):
    (tmp_path / "a.jsonl").write_bytes(lines(record))
    with pytest.raises(ValueError, match=rf"a\.jsonl, line 1.*{message}"):
        read_turns(tmp_path)
