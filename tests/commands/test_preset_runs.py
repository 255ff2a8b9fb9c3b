"""Every preset runs on the command line, from text to answers, at toy size on texts of its own."""

from pathlib import Path

import pytest

from dimgpt.cli import main
from dimgpt.demo.corpus import stories
from dimgpt.presets import PRESETS
from dimgpt.text.byte_level import train_byte_level
from dimgpt.training.journal import read_history

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_curves")]
SHAPE = {
    "context-length": 96,
    "embedding-dim": 16,
    "num-layers": 2,  # as many as the longest pattern of windows
    "num-heads": 2,
    "num-kv-heads": 1,
    "ffn-dim": 24,
}
RUN = {
    "max-steps": 2,
    "batch-size": 2,
    "accumulation-steps": 1,
    "warmup-steps": 0,
    "decay-steps": 2,
    "validation-interval": 2,
    "validation-batches": 1,
    "sample-interval": 2,
    "precision": "fp32",
}


def flags(part, settings):
    return [word for name, value in settings.items() for word in (f"--{part}.{name}", str(value))]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A tokenizer like GPT-2's, to which toyGPT's special tokens are added."""
    path = tmp_path_factory.mktemp("gpt2") / "tokenizer.json"
    train_byte_level(stories(200, seed=0), 320, special_tokens=("<|endoftext|>",)).save(path)
    return path


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "demo"])  # see the notebooks
def test_it_runs_from_text_to_answers(name, gpt2, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    preset = PRESETS[name]
    start = ["--preset", preset.name, "--name", "toy"]
    has_talk = bool(preset.data.conversations)
    data = {"validation-ratio": 0.1, "num-workers": 1, "min-document-characters": 16}
    if preset.data.tokenizer.path is None:
        data |= {"vocab-size": 400, "vocabulary-characters": 20_000}
    else:
        data |= {"vocab-size": 325, "tokenizer.path": gpt2}
    sources = ["--sources", "demo://stories/200"]
    talk = ["--conversations", "demo://conversations/200"] if has_talk else []
    main(["prepare", *start, *sources, *talk, *flags("data", data)])
    main(["train", *start, *flags("model", SHAPE), *flags("training", RUN), "--device", "cpu"])
    stages = ["pretraining"]
    if has_talk:
        main(["finetune", *start, *flags("training", RUN), "--device", "cpu"])
        stages.append("finetuning")
    for stage in stages:
        history = read_history(Path("models/toy-runs") / stage / "history.jsonl")
        assert [record["step"] for record in history if record["kind"] == "step"] == [1, 2]
    capsys.readouterr()
    few = ["--sampling.max-new-tokens", "3"]
    main(["generate", "--preset", preset.name, "--model", "models/toy", "--prompt", "Tom", *few])
    assert capsys.readouterr().out.startswith("Tom")
