import gzip
import json
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from dimgpt.config import SourceConfig
from dimgpt.data.preparing import blocks, tables
from dimgpt.data.preparing.blocks import read_blocks
from dimgpt.data.preparing.items import read_documents, read_items
from dimgpt.data.preparing.listing import SourceFile
from dimgpt.data.preparing.plan import group_files

TEXTS = [f'chat "{n}",\n; dort\tici é' * (1 + n % 7) for n in range(200)]


def csv_text(delimiter=","):
    quoted = (text.replace('"', '""') for text in TEXTS)
    return f"id{delimiter}text\n" + "".join(
        f'{n}{delimiter}"{text}"\n' for n, text in enumerate(quoted)
    )


CONTENTS = {
    "a.jsonl": "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode(),
    "a.csv": csv_text().encode(),
    "semicolon.csv": "\ufeff".encode() + csv_text(";").encode(),
    "crlf.csv": csv_text().replace("\n", "\r\n").encode(),
}
PACKED = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def read(path, *, block_bytes=1_000, skip_bad=False):
    source = SourceConfig(name="x", path=str(path))
    file = SourceFile(name=str(path), num_bytes=path.stat().st_size)
    options = {"folder": path.parent, "seed": 0, "skip_bad": skip_bad}
    cut = list(read_blocks([file], columns=("text",), block_bytes=block_bytes, **options))
    return cut, [item for one in cut for item in read_items(one, source, skip_bad=skip_bad)]


@pytest.mark.parametrize("block_bytes", [100, 1_000, 1 << 20])
@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("name", CONTENTS)
def test_every_record_is_in_one_block_whatever_its_size(tmp_path, name, packing, block_bytes):
    path = tmp_path / f"{name}{packing}"
    path.write_bytes(PACKED[packing](CONTENTS[name]))
    cut, documents = read(path, block_bytes=block_bytes)
    expected = [text.replace("\n", "\r\n") for text in TEXTS] if "crlf" in name else TEXTS
    assert documents == expected
    assert len(cut) > 1 or block_bytes > 1_000
    assert sum(one.file_bytes for one in cut) == path.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("row_group_size", [7, 200])
def test_a_parquet_file_is_cut_within_its_groups_of_rows(tmp_path, row_group_size):
    table = pyarrow.table({"text": TEXTS, "id": list(range(200))})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=row_group_size)
    cut, documents = read(tmp_path / "a.parquet")
    assert documents == TEXTS
    assert len(cut) > 5
    assert sum(one.file_bytes for one in cut) == (tmp_path / "a.parquet").stat().st_size


def test_texts_of_many_files_share_blocks(tmp_path):
    for number, text in enumerate(TEXTS[:50]):
        (tmp_path / f"{number:02}.txt").write_text(text)
    files = [SourceFile(name=str(path), num_bytes=1) for path in sorted(tmp_path.iterdir())]
    cut = list(read_blocks(files, columns=(), folder=tmp_path, seed=0, block_bytes=500))
    assert 2 < len(cut) < 20
    source = SourceConfig(name="x", path=str(tmp_path))
    assert [item for one in cut for item in read_items(one, source)] == TEXTS[:50]


def test_a_file_of_a_kind_that_cannot_be_read_says_which_can(tmp_path):
    (tmp_path / "a.xml").write_text("<text>a</text>")
    with pytest.raises(ValueError, match=r"a\.xml cannot be read: it must be one of \.txt, "):
        read(tmp_path / "a.xml")


def test_small_files_are_one_shard_and_large_ones_several():
    files = [SourceFile(name=str(size), num_bytes=size) for size in (3, 3, 3, 20, 4, 6, 1)]
    shards = group_files(files, num_bytes=10)
    assert [[file.num_bytes for file in shard] for shard in shards] == [
        [3, 3, 3],
        [20],
        [4, 6],
        [1],
    ]


@pytest.mark.parametrize("num_bytes", [-1, -9, 40])
@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_a_packed_file_that_is_cut_short_is_named(tmp_path, packing, num_bytes):
    content = b"".join(b'{"text": "%032x"}\n' % (n * 10**30) for n in range(2_000))
    (tmp_path / f"a.jsonl{packing}").write_bytes(PACKED[packing](content)[:num_bytes])
    with pytest.raises(ValueError, match=rf"a\.jsonl{packing} is cut short or damaged after line"):
        read(tmp_path / f"a.jsonl{packing}")


def test_two_frames_of_zst_are_one_file(tmp_path):
    pack = zstandard.ZstdCompressor().compress
    (tmp_path / "a.jsonl.zst").write_bytes(pack(b'{"text": "a"}\n{"te') + pack(b'xt": "b"}\n'))
    assert read(tmp_path / "a.jsonl.zst")[1] == ["a", "b"]


BAD_LINES = {
    b'{"text": ': "is not JSON",
    b'{"text": "\xff"}': "is not JSON",
    b'{"text": "a\0b"}': "is not JSON",
    b"[1]": "is a JSON list",
    b'{"text": 3}': "'text' is int",
    b'{"body": "a"}': "has no 'text'",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_refused_by_its_place_or_skipped(tmp_path, line):
    good = b'{"text": "good"}\n'
    (tmp_path / "a.jsonl").write_bytes(good * 3 + line + b"\n" + good)
    with pytest.raises(ValueError, match=rf"a\.jsonl, line 4:? {BAD_LINES[line]}") as caught:
        read(tmp_path / "a.jsonl")
    assert str(caught.value).endswith("or set bad_records to 'skip'")
    assert read(tmp_path / "a.jsonl", skip_bad=True)[1] == ["good"] * 3 + [None, "good"]


def test_bad_rows_of_csv_are_refused_by_their_place_or_skipped(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"id,text\n1,good\n2\n3,\xff\n4,good,4\n5,good\n")
    with pytest.raises(ValueError, match=r"a\.csv, line 3 has 1 columns: the header has 2"):
        read(tmp_path / "a.csv")
    assert read(tmp_path / "a.csv", skip_bad=True)[1] == ["good", None, None, None, "good"]
    (tmp_path / "a.csv").write_bytes(b"id,text\n1,\xff\n")
    with pytest.raises(ValueError, match=r"a\.csv, line 2 is not UTF-8"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("header", [b"", b"a,,b", b"a,a", b"\xff,text"])
def test_a_csv_file_without_a_usable_header_is_refused(tmp_path, header):
    (tmp_path / "a.csv").write_bytes(header + b"\n1,2,3\n")
    with pytest.raises(ValueError, match=r"a\.csv"):
        read(tmp_path / "a.csv")


def test_a_text_that_is_not_utf8_is_refused_or_skipped(tmp_path):
    (tmp_path / "a.txt").write_bytes("été".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8 at byte 0"):
        read(tmp_path / "a.txt")
    assert read(tmp_path / "a.txt", skip_bad=True)[1] == [None]


@pytest.mark.slow
def test_text_that_is_not_utf8_in_a_parquet_file_is_refused_or_skipped(tmp_path):
    array = pyarrow.array([b"a", b"\xff", b"c"]).view(pyarrow.string())
    pyarrow.parquet.write_table(pyarrow.table({"text": array}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet, row 2 is not UTF-8"):
        read(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", skip_bad=True)[1] == ["a", None, "c"]


def test_a_wrong_column_is_refused_even_where_bad_records_are_skipped(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"body": "a"}\n' * 200)
    with pytest.raises(ValueError, match=r"has no 'text': it has 'body'.*99 records before"):
        read(tmp_path / "a.jsonl", block_bytes=1 << 20, skip_bad=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"text": "' + b"a" * 5_000),
        ("a.csv", b'id,text\n1,"open' + b"\n1,2" * 2_000),
        ("a.txt", b"a" * 5_000),
    ],
)
def test_a_record_without_an_end_is_refused_before_it_fills_the_memory(
    tmp_path, monkeypatch, name, content
):
    monkeypatch.setattr(tables, "MAX_RECORD_BYTES", 3_000)
    monkeypatch.setattr(tables, "MAX_TEXT_BYTES", 3_000)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}.* is longer than"):
        read(tmp_path / name, block_bytes=500)


@pytest.mark.parametrize("size", [2_000, 2_900, 3_100, 4_000, 20_000])
@pytest.mark.parametrize("place", [0, 1, 30, 60])
def test_a_line_that_is_too_long_is_skipped_and_counted_where_bad_records_are(
    tmp_path, monkeypatch, size, place
):
    monkeypatch.setattr(tables, "MAX_RECORD_BYTES", 3_000)
    good = [f"good {n}" for n in range(60)]
    records = [json.dumps({"text": text}) for text in good]
    records.insert(place, json.dumps({"text": "a" * size}))
    (tmp_path / "a.jsonl").write_text("\n".join(records))
    _, documents = read(tmp_path / "a.jsonl", block_bytes=500, skip_bad=True)
    assert [text for text in documents if text and text.startswith("good")] == good
    assert documents[place] == (None if size > 3_500 else documents[place])
    assert len(documents) == 61


@pytest.mark.slow
def test_a_file_of_any_size_takes_the_memory_of_a_few_blocks(tmp_path):
    line = json.dumps({"text": "chat " * 200}).encode() + b"\n"
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(20_000):
            file.write(line)
    source = SourceConfig(name="x", path=str(path))
    tracemalloc.start()
    assert sum(1 for _ in read_documents(source)) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * blocks.BLOCK_BYTES


def test_the_limit_of_a_csv_field_is_that_of_a_record():
    long = "a" * 200_000
    rows = tables.read_csv(f"{long}\n".encode(), header=b"text", name="a.csv")
    assert list(rows) == [(1, {"text": long})]
