"""A person's own texts on the command line: what they replace, what is kept, what is said."""

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from dimgpt.cli import main
from dimgpt.commands import data as data_commands
from dimgpt.files import sha256_of
from dimgpt.presets import PRESETS
from dimgpt.workspace import customise_data

pytestmark = pytest.mark.slow

DEMO = PRESETS["demo"]
TOY = ["--data.vocab-size", "260", "--data.num-workers", "1"]
PREPARE = ["prepare", "--name", "mine", *TOY]
TOY_RUN = [
    *("--name", "mine", "--device", "cpu", "--training.max-steps", "2"),
    *("--training.batch-size", "2", "--training.warmup-steps", "1", "--training.precision", "fp32"),
    *("--training.validation-batches", "1", "--training.checkpoint-interval", "100"),
]
TOY_MODEL = [
    *("--model.context-length", "32", "--model.window-size", "8", "--model.embedding-dim", "16"),
    *("--model.num-layers", "1", "--model.num-heads", "2", "--model.num-kv-heads", "1"),
    *("--model.ffn-dim", "24"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with own texts and chats, and the texts prepared as `mine`."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_texts").mkdir()
    for number in range(60):
        text = f"Le zébu numéro {number} broute sous le kapokier près du kiosque. " * 2
        (folder / "my_texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    with (folder / "my_chats.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [[f"Où est le numéro {number} ?", "Aujourd'hui au wigwam."] for number in range(40)]
        csv.writer(file).writerows([["user", "assistant"], *rows])
    with (folder / "my_table.jsonl").open("w", encoding="utf-8") as file:
        for number in range(60):
            file.write(json.dumps({"id": number, "body": f"Le zébu {number} broute ici. "}) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main([*PREPARE, "--sources", "my_texts/"])
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """Work in a copy of that folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaint(words):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert isinstance(stop.value.code, str)
    assert "\n" not in stop.value.code
    return stop.value.code


def settings(name="mine"):
    return json.loads((Path("data") / name / "config.json").read_bytes())


def paths(name="mine"):
    data = settings(name)
    return [[source["path"] for source in data[key]] for key in ("sources", "conversations")]


def files_of(folder):
    return {path: sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_own_texts_replace_all_that_the_preset_reads(here):
    assert paths() == [["my_texts/"], []]
    assert not Path("data/mine/finetuning").exists()
    alone = ["--data.no-use-conversations-in-vocabulary", "--only", "vocabulary"]
    main(["prepare", "--name", "alone", *TOY, "--sources", "my_texts/", *alone])
    assert Path("data/alone/vocab.txt").read_bytes() == Path("data/mine/vocab.txt").read_bytes()


def test_own_conversations_are_in_the_vocabulary_where_the_preset_wants_them_there(here):
    own = ["--sources", "my_texts/", "--conversations", "my_chats.csv"]
    main(["prepare", "--name", "both", *TOY, *own, "--only", "vocabulary"])
    assert paths("both") == [["my_texts/"], ["my_chats.csv"]]
    vocabularies = [Path("data", name, "vocab.txt").read_bytes() for name in ("both", "mine")]
    assert vocabularies[0] != vocabularies[1]


def test_own_conversations_alone_keep_the_documents_of_the_preset():
    data = customise_data(DEMO, conversations=["my_chats.csv"]).data
    assert data.sources == DEMO.data.sources
    assert [group.path for group in data.conversations] == ["my_chats.csv"]
    assert data.preferences == DEMO.data.preferences
    own = customise_data(DEMO, sources=["my_texts/"], preferences=["my_pairs.jsonl"]).data
    assert own.conversations == ()
    assert [group.path for group in own.preferences] == ["my_pairs.jsonl"]
    assert customise_data(DEMO, sources=["my_texts/"]).data.preferences == ()


def test_fine_tuning_without_conversations_says_what_to_type_and_that_works(here, capsys):
    main(["train", *TOY_RUN, *TOY_MODEL])
    main(["evaluate", "--name", "mine", "--device", "cpu"])
    said = complaint(["finetune", *TOY_RUN])
    assert "data/mine has no conversations to train on" in said
    command = said.split("`python -m dimgpt ")[1].split("`")[0]
    assert command == "prepare --name mine --conversations FILE"
    main([*command.replace("FILE", "my_chats.csv").split(), *TOY])
    assert paths() == [["my_texts/"], ["my_chats.csv"]]
    main(["finetune", *TOY_RUN])
    assert Path("models/mine-chat/model.safetensors").is_file()


def test_preferring_without_pairs_says_what_to_type_and_that_works(here, capsys):
    pairs = [{"prompt": f"a {n}", "chosen": "oui", "rejected": "non"} for n in range(30)]
    Path("my_pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    main(["train", *TOY_RUN, *TOY_MODEL])
    shutil.copytree("models/mine", "models/mine-chat")
    said = complaint(["prefer", *TOY_RUN])
    command = said.split("`python -m dimgpt ")[1].split("`")[0]
    assert command == "prepare --name mine --preferences FILE"
    main([*command.replace("FILE", "my_pairs.jsonl").split(), *TOY])
    assert paths() == [["my_texts/"], []]
    main([*PREPARE])  # keeps the pairs
    main(["prefer", *TOY_RUN, "--training.decay-steps", "1"])
    assert "mine-preferred" in capsys.readouterr().out
    assert Path("models/mine-preferred/model.safetensors").is_file()


def test_prepare_says_that_there_are_no_conversations(here, capsys):
    main([*PREPARE, "--sources", "my_texts/"])
    assert "No conversations: to fine-tune later" in capsys.readouterr().out


def test_a_second_preparation_without_sources_keeps_those_of_the_folder(here, capsys):
    before = files_of(Path("data"))
    main(PREPARE)
    assert "Keeping the sources of data/mine: my_texts" in capsys.readouterr().out
    assert files_of(Path("data")) == before


def test_a_preparation_that_was_interrupted_keeps_its_sources(here):
    words = ["prepare", "--name", "later", *TOY]
    main([*words, "--sources", "my_texts/", "--only", "vocabulary"])
    main(words)
    assert paths("later") == [["my_texts/"], []]
    assert Path("data/later/pretraining/my_texts/train-00000-00000.bin").is_file()


def test_the_text_column_of_own_texts_is_a_flag(here):
    words = ["prepare", "--name", "table", *TOY, "--sources", "my_table.jsonl"]
    assert "has no 'text': it has 'id', 'body'" in complaint(words)
    main([*words, "--text-column", "body"])
    assert settings("table")["sources"][0]["text_column"] == "body"
    report = Path("data/table/pretraining/my_table/report.json").read_text(encoding="utf-8")
    assert json.loads(report)["num_documents"] == 60
    main(["prepare", "--name", "table", *TOY])
    assert settings("table")["sources"][0]["text_column"] == "body"


def test_a_text_column_without_own_texts_is_refused(here):
    assert "text_column is 'body': it needs sources of your own" in complaint(
        ["prepare", "--name", "new", "--text-column", "body"]
    )


@pytest.mark.parametrize("name", ["sources", "conversations"])
def test_a_text_is_named_by_one_flag_only(here, name):
    words = [f"--data.{name}.0.path", "x", "--sources", "my_texts/"]
    assert f"give either {name} or data.{name}.*" in complaint([*PREPARE, *words])


def test_what_a_report_notes_is_shown_after_preparing(here, monkeypatch, capsys):
    report = SimpleNamespace(
        source="my_texts",
        notes=["3 hidden files were left out"],
        row=lambda: {"source": "my_texts"},
    )
    monkeypatch.setattr(data_commands, "read_reports", lambda workspace: [report])
    main(PREPARE)
    assert "  my_texts: 3 hidden files were left out\n" in capsys.readouterr().out


def test_prepare_reads_its_settings_from_a_file_and_flags_go_before_it(here):
    data = {"vocab_size": 270, "num_workers": 1, "test_ratio": 0.1}
    Path("prepare.json").write_text(
        json.dumps({"name": "filed", "sources": ["my_texts/"], "data": data})
    )
    main(["prepare", "--config", "prepare.json", "--data.vocab-size", "260"])
    made = settings("filed")
    assert (made["vocab_size"], made["test_ratio"]) == (260, 0.1)
    assert paths("filed") == [["my_texts/"], []]
    assert "nothing.json" in complaint(["prepare", "--config", "nothing.json"])


def test_a_list_of_data_sets_takes_the_place_of_paths(here):
    entry = {"name": "me/mine", "subset": ["fr"], "column": "text", "split": "train"}
    Path("datasets.json").write_text(json.dumps([entry]))
    said = complaint(["prepare", "--name", "listed", *TOY, "--sources", "datasets.json"])
    assert "datasets.json, entry 1 has 'split': an entry has name, subset, column only" in said
    assert not Path("data/listed").exists()
