"""A byte that is flipped in any file that a model comes from is found, and its link is named."""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from dimgpt.cli import main
from dimgpt.files import sha256_of

pytestmark = pytest.mark.slow
SHAPE = {
    "context-length": 128,
    "window-size": 32,
    "embedding-dim": 16,
    "num-layers": 1,
    "num-heads": 2,
    "num-kv-heads": 1,
    "ffn-dim": 24,
}
MODEL = [word for name, size in SHAPE.items() for word in (f"--model.{name}", str(size))]
TRAINING = (
    "--training.max-steps 2 --training.batch-size 2 --training.warmup-steps 1 "
    "--training.validation-batches 1 --training.precision fp32 --device cpu"
).split()
PLACES = {
    "export": "models/mine-chat-transformers",
    "chat model": "models/mine-chat",
    "chat checkpoint": "models/mine-runs/finetuning/checkpoints/step-00000002",
    "conversations": "data/mine/finetuning",
    "model": "models/mine",
    "checkpoint": "models/mine-runs/pretraining/checkpoints/step-00000002",
    "token files": "data/mine/pretraining",
    "vocabulary": "data/mine/vocab.txt",
    "texts": "texts",
    "talks": "talks.jsonl",
}
# Not read back, or the end of the chain: nothing vouches for an export's own record.
LEFT_OUT = ("models/mine/README.md", "models/mine-chat/README.md", "export.json", "report.json")


def build(sources, conversations, run):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(run)
        patch.setattr("dimgpt.commands.training.save_curves", lambda *_: None)
        own = ["--sources", sources, "--conversations", conversations]
        main(["prepare", "--name", "mine", *own, "--data.vocab-size", "300"])
        main(["train", "--name", "mine", *MODEL, *TRAINING])
        main(["finetune", "--name", "mine", *TRAINING])
        main(["export", "models/mine-chat", "--to", "transformers"])
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Make an export of a fine-tuned model from own texts, step by step as a person does."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "texts").mkdir()
    for number in range(40):
        text = f"Le chat numéro {number} dort dans la cour, puis il mange et part en ville. " * 3
        (folder / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    talks = [{"user": f"Où est le chat {n} ?", "assistant": "Il dort."} for n in range(40)]
    (folder / "talks.jsonl").write_text("\n".join(map(json.dumps, talks)))
    build("texts", "talks.jsonl", folder)
    return folder


@pytest.fixture
def verify(made, monkeypatch, capsys):
    """Return a function that runs `verify`: its exit status, and the lines that it prints."""
    monkeypatch.chdir(made)

    def run(path="models/mine-chat-transformers"):
        status = 0
        try:
            main(["verify", path])
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr().out.splitlines()

    return run


def test_the_chain_leads_from_the_export_to_the_texts(verify):
    status, lines = verify()
    assert status == 0, lines
    assert {line[0] for line in lines} == {"✓"}
    subjects = [line[2:].split(" ")[0] for line in lines]
    stage = ["model", "checkpoint", "vocabulary", "token", "source"]
    assert subjects == ["export", *stage, *stage]


@pytest.mark.parametrize("place", PLACES)
def test_a_flipped_byte_is_found_in_every_file(made, verify, place, fault):
    path, draw = Path(PLACES[place]), random.Random(place)
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    files = [file for file in files if not str(file).endswith(LEFT_OUT)]
    if place == "texts":
        files = files[::13]
    for file in files:
        content = file.read_bytes()
        flipped = bytearray(content)
        flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(flipped)
        status, lines = verify()
        file.write_bytes(content)
        assert status == 1, file
        assert lines[-1].startswith("✗ this link does not hold: "), file
        assert PLACES[place] in lines[-1], file
        fault(36)
    assert verify()[0] == 0


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("models/mine-chat", "model {}/models/mine-chat: not here"),
        ("models/mine-runs/finetuning/checkpoints", "checkpoint {}/models/mine-runs/finetuning"),
        ("models/mine", "base model {}/models/mine: not here"),
        ("data", "data data/mine: not here"),
        ("talks.jsonl", "source talks.jsonl: talks.jsonl is gone"),
    ],
)
def test_where_files_are_missing_the_chain_ends_with_a_warning(
    verify, made, tmp_path, monkeypatch, missing, said
):
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    monkeypatch.chdir(copy)
    path = copy / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    status, lines = verify()
    assert status == 0
    (warning, *_) = [line for line in lines if line.startswith("!")]
    assert warning.startswith("! " + said.format(copy))
    assert warning.endswith("nothing before it is compared")


def test_a_demo_that_is_built_again_has_the_same_hashes(tmp_path):
    hashes = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        build("demo://stories/200", "demo://conversations/200", folder)
        kept = [*folder.rglob("*.bin"), *folder.rglob("*.safetensors"), *folder.rglob("vocab.txt")]
        hashes.append({path.relative_to(folder): sha256_of(path) for path in kept})
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) > 10
