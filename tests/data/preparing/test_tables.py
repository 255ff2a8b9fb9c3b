import gzip
import json
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.data.preparing import tables
from dimgpt.data.preparing.items import read_conversations, read_documents

RECORDS = [{"text": f'"{n}", {{[ \\ \n été', "id": n} for n in range(300)]
TEXTS = [record["text"] for record in RECORDS]


def read(path, **options):
    settings = {name: options.pop(name) for name in ("text_column",) if name in options}
    return list(read_documents(SourceConfig(name="x", path=str(path), **settings), **options))


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_a_json_list_of_records_is_read(tmp_path, indent, pack):
    content = json.dumps(RECORDS, indent=indent, ensure_ascii=indent is None)
    suffix = {gzip.compress: ".gz", zstandard.compress: ".zst"}.get(pack, "")
    path = tmp_path / f"a.json{suffix}"
    path.write_bytes(pack("\ufeff".encode() + content.encode()))
    assert read(path) == TEXTS
    assert read(tmp_path) == TEXTS


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_file_of_one_record_is_read_when_it_is_asked_for(tmp_path, indent):
    (tmp_path / "a.json").write_text(json.dumps(RECORDS[0], indent=indent))
    assert read(tmp_path / "a.json") == TEXTS[:1]


def test_a_json_file_of_lines_is_read_as_lines(tmp_path):
    content = "".join(json.dumps(record) + "\r\n" for record in RECORDS)
    (tmp_path / "a.json").write_text("\ufeff\n" + content + "bad\n")
    (tmp_path / "b.json").write_text(json.dumps({"text": "x" * 100_000}) + "\n" + content)
    with pytest.raises(ValueError, match=r"a\.json, line 302 is not JSON"):
        read(tmp_path)
    assert read(tmp_path, skip_bad=True) == [*TEXTS, "x" * 100_000, *TEXTS]


@pytest.mark.parametrize("content", ["[]", " [ \n ] ", "", "\n"])
def test_an_empty_json_file_holds_no_document(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match="holds no document"):
        read(tmp_path / "a.json")


@pytest.mark.parametrize(
    "content",
    [
        b'[{"text": "a"}',
        b'[{"text": "a"},',
        b'[{"text": "a"},]',
        b'[{"text": "a"} {"text": "b"}]',
        b'[{"text": "a"}] [',
        b'{\n"text": "a"}]',
        b'[{"text": "\xff"}]',
        b"[" * 100_000,
        b"]",
    ],
)
def test_a_broken_json_file_is_refused_even_where_bad_records_are_skipped(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is not JSON") as caught:
        read(tmp_path / "a.json", skip_bad=True)
    assert "\n" not in str(caught.value)


def test_a_bad_record_of_a_json_list_is_named_or_skipped(tmp_path):
    (tmp_path / "a.json").write_text(
        json.dumps([{"text": "a"}, "b", {"text": None}, {"text": "c"}])
    )
    with pytest.raises(ValueError, match=r"a\.json, record 2 is a JSON str"):
        read(tmp_path)
    assert read(tmp_path, skip_bad=True) == ["a", "c"]


def test_a_json_list_that_is_too_long_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_TEXT_BYTES", 3_000)
    (tmp_path / "a.json").write_text(json.dumps(RECORDS))
    with pytest.raises(ValueError, match=r"a\.json is longer than.*convert it to \.jsonl"):
        read(tmp_path)


@pytest.mark.slow
def test_a_json_list_takes_the_memory_of_a_few_times_its_text(tmp_path):
    content = json.dumps([{"text": "chat " * 200, "id": n} for n in range(5_000)])
    (tmp_path / "a.json").write_text(content)
    source = SourceConfig(name="x", path=str(tmp_path))
    tracemalloc.start()
    assert sum(1 for _ in read_documents(source)) == 5_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(content) + 12 * (1 << 20)


def test_conversations_are_read_from_a_json_list(tmp_path):
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (tmp_path / "a.json").write_text(json.dumps([{"messages": messages}] * 3))
    source = ConversationSourceConfig(name="x", path=str(tmp_path))
    texts = [[m.text for m in conversation.messages] for conversation in read_conversations(source)]
    assert texts == [["a", "b"]] * 3


def write_nulls(path, bad):
    texts = [None if number in bad else f"text {number}" for number in range(1, 2_001)]
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path)
    else:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return [text for text in texts if text]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_a_null_text_is_skipped_or_named_with_how_many_are_so(tmp_path, name):
    texts = write_nulls(tmp_path / name, bad=range(7, 2_000, 33))
    with pytest.raises(ValueError, match=r"(row|line) 7: 'text' is null") as caught:
        read(tmp_path)
    assert "; 31 of the first 1,000 cannot be used; " in str(caught.value)
    assert str(caught.value).endswith("set bad_records to 'skip'")
    assert read(tmp_path, skip_bad=True) == texts


def test_a_missing_column_says_which_setting_names_it(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "b"}\n')
    with pytest.raises(ValueError, match=r"it has 'body'; set text_column \(--text-column NAME\)"):
        read(tmp_path)
    assert read(tmp_path, text_column="body") == ["b"]


def test_a_csv_file_with_a_column_of_row_numbers_is_read(tmp_path):
    (tmp_path / "a.csv").write_text(",text,n\n0,one,1\n1,two,2\n")  # as `DataFrame.to_csv()`
    assert read(tmp_path) == ["one", "two"]
    (tmp_path / "a.csv").write_text(",text,n\n0,one\n")
    with pytest.raises(ValueError, match="line 2 has 2 columns: the header has 3"):
        read(tmp_path)


def test_a_quote_that_is_not_closed_is_named_by_the_line_that_opens_it(tmp_path):
    (tmp_path / "a.csv").write_text('text,n\none,1\n"two,2\nthree,3\n')
    with pytest.raises(
        ValueError, match="line 3 has 1 columns: .* its quotes join 2 lines into one row"
    ):
        read(tmp_path)


@pytest.mark.parametrize("header", ['"titre, sous-titre, date";text', '"a;b,c,d,e";"text"'])
def test_a_delimiter_within_quotes_of_a_header_does_not_count(tmp_path, header):
    (tmp_path / "a.csv").write_text(f'{header}\n"x";"un, deux; trois"\n')
    assert read(tmp_path) == ["un, deux; trois"]
