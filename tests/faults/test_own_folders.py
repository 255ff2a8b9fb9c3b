"""Folders of texts as people have them: read, left out with a count, or named."""

import os
from pathlib import Path

import pytest

from dimgpt.cli import main
from dimgpt.pipeline.data import open_corpus
from dimgpt.presets import PRESETS
from dimgpt.settings import override
from dimgpt.workspace import Workspace, load_vocabulary

pytestmark = pytest.mark.slow
CHAT, CHIEN = "le chat dort dans la cour", "un chien mange dehors, le soir"
ARBRE, OISEAU = "arbre rouge, arbre bleu et vert", "oiseaux qui chantent en été"
TWO = {"texts/a.txt": CHAT, "texts/b.txt": CHIEN}
BOOK = "\n".join(f"Chapitre {number} : le chat dort et le chien court." for number in range(400))


def write(files):
    """Write files; the value of a link is `-> target`."""
    for name, content in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content.startswith("-> "):
            path.symlink_to(content.removeprefix("-> "))
        else:
            path.write_text(content, encoding="utf-8")


def prepare():
    """Prepare the folder `texts` with the verb, and return the documents that it has kept."""
    words = ["prepare", "--name", "mine", "--sources", "texts", "--data.num-workers", "1"]
    words += ["--data.vocab-size", "272", "--data.tokenizer.kind", "byte_level"]
    main([*words, "--data.min-document-characters", "4"])
    workspace = Workspace(preset=override(PRESETS["demo"], name="mine"))
    corpus, tokenizer = open_corpus(workspace), load_vocabulary(workspace)
    files = [file for split in (corpus.train, corpus.validation) for file in split.files]
    ids = [file.document(place) for file in files for place in range(file.num_documents)]
    return [tokenizer.decode(one[:-1]) for one in ids]


CASES = {
    "hidden files and folders": (
        {**TWO, "texts/.hidden/deep/x.txt": "x", "texts/sub/.ipynb_checkpoints/y.txt": "y"},
        [CHAT, CHIEN],
        "hidden files and folders left out (2): .hidden, .ipynb_checkpoints",
    ),
    "what macOS leaves": (
        {**TWO, "texts/._a.txt": b"\0\5\x16\7\xff", "texts/.DS_Store": b"\0\0\0\1Bud1"},
        [CHAT, CHIEN],
        "hidden files and folders left out (2): .DS_Store, ._a.txt",
    ),
    "one folder linked three times": (
        {
            **{"texts/a.txt": CHAT, "elsewhere/sub/b.txt": CHIEN},
            **{"texts/one": "-> ../elsewhere", "texts/two": "-> ../elsewhere"},
            "texts/three": "-> ../elsewhere/sub",
        },
        [CHAT, CHIEN],
        None,
    ),
    "links in a circle": (
        {
            **{"texts/sub/a.txt": CHAT, "texts/sub/b.txt": CHIEN, "texts/sub/up": "-> .."},
            **{"texts/itself": "-> .", "texts/sub/twice": "-> ../sub/up"},
        },
        [CHAT, CHIEN],
        None,
    ),
    "a linked source, linked files and a broken link": (
        {
            **{"real/a.txt": CHAT, "file": CHIEN, "texts": "-> real", "real/b.txt": "-> ../file"},
            "real/c.txt": "-> nowhere",
        },
        [CHAT, CHIEN],
        "broken links left out (1): c.txt",
    ),
    "files of other kinds": (
        {**TWO, "texts/book.pdf": b"%PDF-1.7 \xff", "texts/c.docx": b"PK", "texts/LICENCE": "?"},
        [CHAT, CHIEN],
        "files of other kinds left out (3): .docx, .pdf, no suffix",
    ),
    "a file about the folder": (
        {**TWO, "texts/README.md": "about"},
        [CHAT, CHIEN],
        "files about their folders left out (1): README.md",
    ),
    "JSON that is no list of records": (
        {**TWO, "texts/config.json": '{"sizes": [{"text": 3}]}'},
        [CHAT, CHIEN],
        ".json files without a list of records left out (1): config.json",
    ),
    "several kinds, names in capitals": (
        {"texts/A.TXT": CHAT, "texts/b.md": CHIEN, "texts/c.JSONL": f'{{"text": "{ARBRE}"}}'},
        [ARBRE, CHAT, CHIEN],
        None,
    ),
    "a byte-order mark, CRLF, decomposed accents": (
        {"texts/a.txt": f"\ufeff{CHAT}\r\n{CHIEN}", "texts/b.txt": "oiseaux en e\u0301te\u0301 !"},
        [f"{CHAT}\n{CHIEN}", "oiseaux en e\u0301te\u0301 !"],
        None,
    ),
    "one single document": (
        {"texts/book.txt": BOOK},
        None,
        "characters of the longest are held out",
    ),
    "an empty file": ({**TWO, "texts/empty.txt": ""}, [CHAT, CHIEN], None),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_folder_is_read_and_what_is_left_out_is_said(case, tmp_path, monkeypatch, capsys, fault):
    files, documents, note = case
    monkeypatch.chdir(tmp_path)
    write(files)
    prepared = prepare()
    if documents is None:  # held out by place: the end of the only document
        rest, held_out = prepared
        assert (rest.rstrip("\n") + "\n" + held_out) == BOOK
        assert len(held_out) < len(rest)
    else:
        assert sorted(prepared) == documents
    shown = capsys.readouterr().out
    assert ("left out" in shown or "the last" in shown) == (note is not None)
    assert note is None or note in shown
    fault(26)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({**TWO, "texts/c.txt": OISEAU.encode("latin-1")}, "texts/c.txt is not UTF-8 at byte 24"),
        ({**TWO, "texts/c.txt": OISEAU.encode("utf-16")}, "texts/c.txt is not UTF-8 at byte 0"),
        ({"texts/a.pdf": "?", "texts/.b.txt": CHAT}, "has no file to read: usable are .txt"),
        ({"texts/a.txt": CHAT, "texts/b.txt": "a"}, "texts is too small to split"),
    ],
    ids=["Latin-1", "UTF-16", "nothing to read", "too little"],
)
def test_what_cannot_be_read_is_named_in_one_line(files, said, tmp_path, monkeypatch, fault):
    monkeypatch.chdir(tmp_path)
    write(files)
    with pytest.raises(SystemExit) as stop:
        prepare()
    assert said in stop.value.code
    assert "\n" not in stop.value.code
    fault(26)


def test_a_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch, capsys, fault):
    monkeypatch.chdir(tmp_path)
    write({**TWO, "texts/locked/c.txt": OISEAU})
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert sorted(prepare()) == [CHAT, CHIEN]
    assert "folders that cannot be opened left out (1): texts/locked" in capsys.readouterr().out
    fault(26)
