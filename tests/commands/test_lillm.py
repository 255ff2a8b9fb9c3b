"""lilLM's formats on the command line, beyond the rows of `test_coming_from.py`."""

import io
import json
import shutil
from pathlib import Path

import pytest

from dimgpt.cli import main
from dimgpt.text.byte_level import train_byte_level
from dimgpt.weights.store import load_tokenizer

pytestmark = pytest.mark.slow

FIXTURES = Path(__file__).parents[1] / "fixtures" / "lillm"
TEXT = "".join(f"{n} times {n % 7} is a number of cats on mat {n} " * 2 for n in range(400))
SETTINGS = {
    "preset": "lillm-39m",
    "name": "tiny",
    "device": "cpu",
    "training": {
        "batch_size": 2,
        "accumulation_steps": 2,
        "max_steps": 3,
        "precision": "fp32",
        "validation_interval": 3,
        "validation_batches": 1,
        "checkpoint_interval": 3,
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, no_curves):
    """A folder in which the rows were run up to the fine-tuned model."""
    folder = tmp_path_factory.mktemp("lillm")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("download").mkdir()
        shutil.copy(FIXTURES / "best_model_sft_orig_mod.pt", "download/best_model.pt")
        train_byte_level([TEXT], 512, first_space=True).save(Path("download/tokenizer.json"))
        talk = [
            {
                "conversation": [
                    {"role": "system", "content": "Be kind."},
                    {"role": "user", "content": f"Say {number}"},
                    {"role": "assistant", "content": f"It is {number}."},
                ]
            }
            for number in range(200)
        ]
        Path("talk.jsonl").write_text("".join(json.dumps(line) + "\n" for line in talk))
        Path("text.jsonl").write_text(
            "".join(json.dumps({"text": f"{number} {TEXT[:200]}"}) + "\n" for number in range(200))
        )
        Path("run.json").write_text(json.dumps(SETTINGS))
        main(["import", "download/best_model.pt", "--name", "tiny"])
        prepare = ["prepare", "--preset", "lillm-39m", "--name", "tiny"]
        prepare += ["--sources", "text.jsonl", "--conversations", "talk.jsonl"]
        prepare += ["--data.tokenizer.path", "download/tokenizer.json"]
        prepare += ["--data.tokenizer.special-tokens", "--data.vocab-size", "512"]
        prepare += ["--data.num-workers", "1", "--data.validation-ratio", "0.1"]
        main(prepare)
        main(["finetune", "--config", "run.json"])
    return folder


def test_the_original_chats_as_it_is_and_as_it_was_imported(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    few = ["--preset", "lillm-39m", "--sampling.max-new-tokens", "5", "--sampling.seed", "0"]
    answers = []
    for model in ("download/best_model.pt", "models/tiny"):
        monkeypatch.setattr("sys.stdin", io.StringIO("What is the capital of France?\n"))
        main(["chat", "--model", model, *few])
        answers.append(capsys.readouterr().out)
    assert answers[0].startswith("> ")
    assert answers[0] == answers[1]
    assert json.loads(Path("models/tiny/config.json").read_text())["chat_format"] == "lillm"


def test_a_bare_checkpoint_asks_for_its_tokenizer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(FIXTURES / "best_model_sft_orig_mod.pt", "alone.pt")
    with pytest.raises(SystemExit, match="no tokenizer next to .* give it with --tokenizer"):
        main(["import", "alone.pt"])


def test_a_vocabulary_without_tokens_for_roles_is_refused_before_anything_is_prepared(
    folder, monkeypatch
):
    monkeypatch.chdir(folder)
    plain = train_byte_level([TEXT], 300, special_tokens=("<|endoftext|>",))
    plain.save(Path("plain/tokenizer.json"))
    words = ["prepare", "--preset", "lillm-39m", "--name", "plain", "--sources", "text.jsonl"]
    words += ["--conversations", "talk.jsonl", "--data.tokenizer.path", "plain/tokenizer.json"]
    words += ["--data.tokenizer.special-tokens", "--data.vocab-size", "300"]
    with pytest.raises(SystemExit, match=r"can write no conversation: .* <\|endoftext\|>"):
        main(words)
    assert not list(Path("data/plain").glob("pretraining/*"))


def test_a_folder_of_an_older_version_has_the_format_of_its_tokens(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder / "models/tiny-chat", copy)
    content = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**content, "chat_format": 7}))
    with pytest.raises(ValueError, match="chat_format is 7"):
        load_tokenizer(copy)
    del content["chat_format"]  # of an older version
    (copy / "config.json").write_text(json.dumps(content))
    assert load_tokenizer(copy).chat.format.name == "lillm"
