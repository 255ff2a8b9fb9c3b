import gzip

import pytest

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.data.preparing.items import read_documents
from dimgpt.data.preparing.listing import list_source


def read(path):
    return list(read_documents(SourceConfig(name="x", path=str(path))))


def notes(path, config=SourceConfig):
    return list_source(config(name="x", path=str(path))).notes


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)


def test_a_hidden_path_that_is_asked_for_is_read(tmp_path):
    write(tmp_path / ".texts", a="a")
    (tmp_path / ".texts" / ".b.txt").write_text("b")
    assert read(tmp_path / ".texts") == ["a"]
    assert read(tmp_path / ".texts" / ".b.txt") == ["b"]


def test_a_folder_that_is_linked_as_well_keeps_its_own_name(tmp_path):
    write(tmp_path / "z", a="a")
    (tmp_path / "a").symlink_to("z", target_is_directory=True)
    files = list_source(SourceConfig(name="x", path=str(tmp_path))).files
    assert [file.name for file in files] == [str(tmp_path / "z" / "a.txt")]


def test_files_of_other_kinds_are_named(tmp_path):
    write(tmp_path, a="a")
    for name in ("b.pdf", "c.PDF", "d.docx", "e.pdf", "LICENCE", "f.parquet.gz"):
        (tmp_path / name).write_bytes(b"?")
    assert notes(tmp_path) == ("files of other kinds left out (6): .docx, .gz, .pdf, no suffix",)
    (tmp_path / "a.jsonl").touch()
    assert notes(tmp_path, ConversationSourceConfig)[0].endswith(
        ".docx, .gz, .pdf, .txt, no suffix"
    )


def test_a_long_list_of_other_kinds_is_cut(tmp_path):
    write(tmp_path, a="a")
    for number in range(9):
        (tmp_path / f"x.{number}").touch()
    assert notes(tmp_path) == ("files of other kinds left out (9): .0, .1, .2, .3, .4, …",)


def test_text_files_are_known_by_their_ends_in_any_case(tmp_path):
    for name in ("A.TXT", "b.text", "c.md", "d.Md"):
        (tmp_path / name).write_text(name)
    for name in ("e.md.gz", "F.TEXT.GZ"):
        (tmp_path / name).write_bytes(gzip.compress(name.encode()))
    (tmp_path / "G.JSONL").write_text('{"text": "G.JSONL"}')
    assert sorted(read(tmp_path)) == sorted(path.name for path in tmp_path.iterdir())
    assert read(tmp_path / "A.TXT") == ["A.TXT"]


def test_a_file_about_the_folder_is_left_out_and_read_when_it_is_asked_for(tmp_path):
    write(tmp_path, a="a")
    (tmp_path / "README.md").write_text("about")
    assert read(tmp_path) == ["a"]
    assert notes(tmp_path) == ("files about their folders left out (1): README.md",)
    assert read(tmp_path / "README.md") == ["about"]


@pytest.mark.parametrize(
    "content", ['{"sizes": [{"text": 3}]}', '{\n"text": "b"\n}', '["b", "c"]', "", "no JSON"]
)
def test_a_json_file_without_a_list_of_records_is_left_out(tmp_path, content):
    write(tmp_path, a="a")
    (tmp_path / "config.json").write_text(content)
    assert read(tmp_path) == ["a"]
    assert notes(tmp_path) == (".json files without a list of records left out (1): config.json",)
