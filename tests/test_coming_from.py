"""The tables for people who come from another system: each row runs, in the words of the page.

A system has a folder with tiny files of the original, in which all commands of its table run, each
with flags that make it small. Notebooks run in `test_notebooks.py`; under `torchrun` it is the
trainer that runs, in `training/test_distributed.py`.
"""

import contextlib
import functools
import io
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import pyarrow
import pyarrow.parquet
import pytest
from hub_server import HubServer
from huggingface_hub import constants
from originals import (
    FIXTURES,
    write_dimensiongpt_data,
    write_dimensiongpt_run,
    write_dimensiongpt_weights,
    write_toygpt_checkpoint,
)

from dimgpt.cli import main
from dimgpt.commands import VERBS
from dimgpt.demo.corpus import stories
from dimgpt.text.byte_level import train_byte_level
from dimgpt.weights.download import REPOSITORIES

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[1] / "docs" / "coming-from.md").read_text(encoding="utf-8")
ROWS = [
    (section.partition("\n")[0], theirs.replace("`", ""), here)
    for section in PAGE.split("\n## ")[1:]
    for theirs, here in re.findall(r"^\| (.+?) \| (.+) \|$", section, re.MULTILINE)
    if theirs not in ("theirs", "---")
]
# What is made comes before what it is used for.
ORDER = "download import import-data prepare train finetune resume evaluate generate chat".split()
NO_COMMANDS = ("torchrun", "MLM")
LILLM_FILE = "lilLM_40M_params_10B_tok.pt"
FILES = {  # where the originals' files are, none of them beside a tokenizer
    "DimensionGPT": {"M": "theirs/model.pt"},
    "lilLM": {"M": f"models/lillm-39m/{LILLM_FILE}", "T": "tokenizer.json"},
    "toyGPT": {"M": "theirs/X.ckpt", "X.ckpt": "theirs/X.ckpt", "T": "tokenizer.json"},
}


class Claim(NamedTuple):
    """What a row leaves behind: a file that holds a text; without a file, a text on the screen."""

    file: str
    text: str = ""
    extra: str = ""  # words that the row's commands need beside the toy sizes


MADE = "models/{}/model.safetensors".format
CLAIMS = {
    "create_data.ipynb": Claim("data/dimensiongpt-0.2b/pretraining/*/manifest.json", "stories"),
    "its prepared folder data/": Claim("data/N/pretraining/*/manifest.json", "web"),
    "training.ipynb, pretraining": Claim(MADE("dimensiongpt-0.2b")),
    "training.ipynb, fine-tuning": Claim(MADE("dimensiongpt-0.2b-chat")),
    "a run that is half done, output/": Claim(
        "models/taken-runs/pretraining/history.jsonl",
        '"loss_average": 6.25.*"step": 2',
        "--name taken",
    ),
    "testing.ipynb": Claim("", r"^P[^>]*\n> .+\n"),
    "train_custom_tokenizer.py, process.py": Claim("data/lillm-39m/tokenizer.json", "<r0>"),
    "pretrain.py": Claim(MADE("lillm-39m")),
    "download_model.py": Claim("models/N/card.json", LILLM_FILE),
    "sft_train.py --init_from resume --model_path M": Claim(
        "models/N-chat/config.json", '"chat_format": "lillm"'
    ),
    "inference.py --model_type sft": Claim("", "^> .+\n"),
    "inference.py --model_type pretrain": Claim("", "^P.+\n"),
    "inference_gradio.py": Claim("", "^> .+\n"),
    "train -c config.json": Claim("models/N/config.json", '"ffn_dim": 40'),
    "-s datasets.json": Claim("data/toygpt-small/pretraining/*/manifest.json", "owner/tales"),
    "-t CLM": Claim(MADE("toygpt-small")),
    "resume": Claim("", "(resuming at step 1.*){2}"),
    "resume -i X.ckpt": Claim("imported/N/config.json", "", "--models-root imported"),
    "generate -p P -m M": Claim("", "^P.+\n"),
    "preprocess -c -b -x -s": Claim("R/toygpt-small/pretraining/*/manifest.json", "owner/tales"),
    "its test split": Claim("", r"toygpt-small, test\n.*tales"),
}
# The sizes are those of the DimensionGPT in the fixtures, whose half-done run goes on.
MODEL = """--model.context-length 64 --model.embedding-dim 64 --model.num-layers 3
    --model.num-heads 4 --model.num-kv-heads 2 --model.ffn-dim 170""".split()
RUN = """--device cpu --training.batch-size 2 --training.accumulation-steps 1
    --training.max-steps 2 --training.precision fp32 --training.validation-interval 1
    --training.validation-batches 1 --training.checkpoint-interval 1
    --training.keep-checkpoints 9""".split()
DATA = """--data.vocab-size 512 --data.num-workers 1 --data.validation-ratio 0.1
    --data.test-ratio 0.1 --data.min-document-characters 16
    --data.vocabulary-characters 20000""".split()
TEXTS = ["--sources", "demo://stories/200", "--conversations", "demo://conversations/800"]
FEW = ["--sampling.max-new-tokens", "5", "--sampling.seed", "0"]
VALUES = {  # of the flags that a row names alone: neither the preset's nor the toy run's
    "--data-root": "R",
    "--data-name": "N",
    "--sampling.top-repeat-penalty": 0.0,
    "--training.accumulation-steps": 3,
    "--training.attention-dropout": 0.3,
    "--training.batch-size": 3,
    "--training.decay-steps": 4,
    "--training.dropout": 0.4,
    "--training.learning-rate": 0.002,
    "--training.max-grad-norm": 0.5,
    "--training.max-steps": 4,
    "--training.min-learning-rate": 0.0001,
    "--training.precision": "bf16",
    "--training.trackers": "tensorboard",
    "--training.validation-batches": 2,
    "--training.validation-interval": 2,
    "--training.warmup-steps": 1,
    "--training.weight-decay": 0.3,
}


def commands(here):
    """Return the words of each command in a cell; a name's other ending, `(-large)`, is one."""
    found = []
    for span in re.findall(r"`([^`]+)`", here):
        words = shlex.split(span.removeprefix("-m dimgpt "))
        if re.fullmatch("-[a-z]+", span):
            found.append([*found[-1][:-1], re.sub("-[a-z]+$", span, found[-1][-1])])
        elif words[0] in VERBS:
            found.append(words)
        elif not (span in NO_COMMANDS or span.endswith(".ipynb") or span in flags(here)):
            raise ValueError(f"`{span}` is no command, no flag alone and no notebook")
    return found


def flags(here):
    """Return the flags that a cell names alone."""
    return re.findall(r"`(--[^` ]+)`", here)


def verb_of(flag):
    return "generate" if flag.startswith("--sampling.") else "train"


def complete(system, command):
    """Return a command of the page with the files that are there, and small."""
    verb, words = command[0], [FILES[system].get(word, word) for word in command]
    if verb == "prepare":
        words += DATA if "--sources" in words else DATA + TEXTS
    elif verb in ("generate", "chat"):
        words += FEW
    elif verb in ("train", "finetune"):
        words += RUN
    if verb == "train" and "--config" not in words:
        words += MODEL
        words += ["--data-name", "toygpt-small"] if system == "toyGPT" else []
    return words


def run(words):
    """Run a command and return what it prints, or its refusal."""
    screen = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(screen):
        patch.setattr("sys.stdin", io.StringIO("Bonjour !\n"))
        try:
            main(words)
        except SystemExit as stop:
            return f"refused: {stop.code}"
    return screen.getvalue()


def follow(system):
    """Run all commands of a table in the working directory: command of the page -> its text."""
    rows = [(theirs, here) for name, theirs, here in ROWS if name == system]
    extra = {
        tuple(words): CLAIMS[theirs].extra.split()
        for theirs, here in rows
        for words in commands(here)
    }
    texts = {}
    for command in sorted(extra, key=lambda words: ORDER.index(words[0])):
        if command[0] == "resume":  # as if the runs had been stopped after their first step
            for path in Path("models").glob("*/*/checkpoints/*-00000002"):
                shutil.rmtree(path)
        texts[command] = run([*complete(system, command), *extra[command]])
    if not Path("R").exists():
        shutil.copytree("data", "R")
    for verb in ("train", "generate"):
        named = {flag for _, here in rows for flag in flags(here) if verb_of(flag) == verb}
        if named:
            usual = complete(system, next(command for command in texts if command[0] == verb))
            values = [word for flag in sorted(named) for word in (flag, str(VALUES[flag]))]
            name = ["--name", "flags"] if verb == "train" else []
            texts[verb, "with flags"] = run([*usual, *name, *values])
    return texts


def leave_dimensiongpt(hub):
    """Leave its data, its weights and a run after one step."""
    vocabulary = FIXTURES / "dimensiongpt_sampling" / "vocab_512.txt"
    shutil.copy(vocabulary, "vocab.txt")
    write_dimensiongpt_data(Path("data"), vocabulary)
    write_dimensiongpt_run(Path("output"))
    write_dimensiongpt_weights(Path(FILES["DimensionGPT"]["M"]))


def leave_lillm(hub):
    """Put its weights on the hub, and its tokenizer here."""
    weights = (FIXTURES / "lillm" / "best_model_sft_orig_mod.pt").read_bytes()
    hub.add(REPOSITORIES["lillm-39m"], {LILLM_FILE: weights})
    train_byte_level(stories(200, seed=0), 512, first_space=True).save(Path("tokenizer.json"))


def leave_toygpt(hub):
    """Leave a checkpoint, a list of data sets and our file of sizes; the rest is on the hub."""
    write_toygpt_checkpoint(Path(FILES["toyGPT"]["M"]))
    # The tokens of GPT-2, to which toyGPT adds five.
    gpt2 = train_byte_level(stories(200, seed=0), 507, special_tokens=("<|endoftext|>",))
    gpt2.save(Path("tokenizer.json"))
    hub.add("openai-community/gpt2", {"tokenizer.json": gpt2.to_bytes()})
    table = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": list(stories(200, seed=0))}), table)
    hub.add("owner/tales", {"train/0.parquet": table.getvalue()}, kind="dataset")
    listed = [{"name": "owner/tales", "subset": None, "column": "text"}]
    Path("datasets.json").write_text(json.dumps(listed))
    sizes = {"context_length": 64, "embedding_dim": 32, "num_layers": 1, "ffn_dim": 40}
    names = {"preset": "toygpt-small", "name": "N", "data_name": "toygpt-small"}
    Path("F").write_text(json.dumps({**names, "model": sizes}))


LEAVE = {"DimensionGPT": leave_dimensiongpt, "lilLM": leave_lillm, "toyGPT": leave_toygpt}


@pytest.fixture(scope="module")
def followed(tmp_path_factory, no_curves):
    """Return the folder of a system after all its commands, and what each of them printed."""

    @functools.cache
    def follow_once(system):
        folder = tmp_path_factory.mktemp(system)
        with HubServer() as hub, pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(
                constants.ENDPOINT, hub.endpoint
            )
            patch.setattr(constants, "ENDPOINT", hub.endpoint)
            patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
            LEAVE[system](hub)
            return folder, follow(system)

    return follow_once


@pytest.mark.parametrize(("system", "theirs", "here"), ROWS, ids=[theirs for _, theirs, _ in ROWS])
def test_a_row_does_what_it_promises(followed, system, theirs, here):
    folder, texts = followed(system)
    shown = [texts[tuple(words)] for words in commands(here)]
    shown += [texts[verb_of(flag), "with flags"] for flag in flags(here)]
    assert shown, "the row names no command"
    assert not [text for text in shown if text.startswith("refused")]
    for flag in flags(here):
        if verb_of(flag) == "train":
            assert recorded(folder / "models/flags-runs/pretraining", flag) == VALUES[flag]
        else:
            usual = next(text for words, text in texts.items() if words[0] == "generate")
            assert texts["generate", "with flags"] != usual
    if commands(here):
        claim = CLAIMS[theirs]
        files = [
            path.read_bytes().decode(errors="replace") for path in folder.glob(claim.file or "-")
        ]
        assert files or not claim.file
        assert re.search(claim.text, "".join(files or shown), re.MULTILINE | re.DOTALL)


def recorded(run_dir, flag):
    """Return the setting that a run has kept, to be resumed with."""
    found = json.loads((run_dir / "run.json").read_text())
    part, _, name = flag.removeprefix("--").replace("-", "_").rpartition(".")
    value = (found["preset"]["pretraining"] if part else found)[name]
    return value[0] if isinstance(value, list) else value


def test_each_claim_is_about_a_row():
    assert set(CLAIMS) == {theirs for _, theirs, here in ROWS if commands(here)}
    assert {system for system, _, _ in ROWS} == set(LEAVE)
    assert set(VALUES) == {flag for _, _, here in ROWS for flag in flags(here)}


def test_a_row_with_a_flag_that_is_gone_would_fail():
    assert run(["train", "--training.no-such-flag", "1"]).startswith("refused")
