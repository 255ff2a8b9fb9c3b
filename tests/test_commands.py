"""The command line, from text to chat, in real processes; what goes wrong, in this one."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dimgpt import commands
from dimgpt.cli import main
from dimgpt.commands import data as data_commands
from dimgpt.files import sha256_of
from dimgpt.weights.store import load_model, save_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FOLDERS = ["--name", "toy", "--data-root", "my data", "--models-root", "modèles"]
TOY_DATA = [
    *("--data.vocab-size", "300", "--data.num-workers", "1"),
    *("--data.packing", "concatenate"),  # no conversation fits into the short context
]
TOY_MODEL = [
    *("--model.context-length", "32", "--model.window-size", "8", "--model.embedding-dim", "16"),
    *("--model.num-layers", "1", "--model.num-heads", "2", "--model.num-kv-heads", "1"),
    *("--model.ffn-dim", "24", "--device", "cpu"),
]
TOY_RUN = [
    *("--training.batch-size", "2", "--training.warmup-steps", "1", "--training.precision", "fp32"),
    *("--training.validation-batches", "1", "--training.sample-interval", "100000"),
    *("--training.validation-interval", "100000", "--training.checkpoint-interval", "100000"),
]
NUM_STEPS = 300
TRAIN = ["train", *FOLDERS, *TOY_MODEL, *TOY_RUN, "--training.max-steps", str(NUM_STEPS)]


def start(folder, words):
    variables = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    options = {"cwd": folder, "env": variables, "stdout": -1, "stderr": -1, "stdin": -1}
    return subprocess.Popen([sys.executable, "-m", "dimgpt", *words], **options)


def finish(process):
    out, error = (text.decode("utf-8") for text in process.communicate(timeout=120))
    return process.returncode, out, error


def interrupt(folder, words, number, run_dir):
    """Send a signal to a training once it has taken a step."""
    process = start(folder, words)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        history = run_dir / "history.jsonl"
        if history.exists() and '"kind": "step"' in history.read_text(encoding="utf-8"):
            process.send_signal(number)
            break
        time.sleep(0.005)
    return finish(process)


def files_of(folder):
    return {path: sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder where `prepare` ran; its name has a space and an accent."""
    folder = tmp_path_factory.mktemp("é") / "à b"
    folder.mkdir()
    sources = ["--sources", "demo://stories/300", "--conversations", "demo://conversations/100"]
    status, out, error = finish(start(folder, ["prepare", *FOLDERS, *TOY_DATA, *sources]))
    assert status == 0, error
    assert "stories" in out
    assert "Traceback" not in error
    return folder


@pytest.fixture(scope="module")
def trained(prepared):
    """The same folder after an interrupted training, the rest of it, and a fine-tuning."""
    run_dir = prepared / "modèles" / "toy-runs" / "pretraining"
    status, out, error = interrupt(prepared, TRAIN, signal.SIGINT, run_dir)
    assert status == 130
    assert "(interrupted)" in out
    assert "run the same command again to continue" in error
    assert "Traceback" not in error
    assert not (prepared / "modèles" / "toy").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(prepared)
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            main(TRAIN)
        assert "resuming at step" in shown.getvalue()
        main(["finetune", *FOLDERS, *TOY_RUN, "--training.max-steps", "3"])
    return prepared


@pytest.fixture
def here(trained, monkeypatch):
    """Work in that folder, and find all files as they were afterwards."""
    monkeypatch.chdir(trained)
    before = files_of(trained)
    yield trained
    assert files_of(trained) == before


def complaint(words):
    """Run a verb that fails, and return its one line."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert isinstance(stop.value.code, str), "the status of a text is 1"
    assert "\n" not in stop.value.code
    assert stop.value.code.startswith(f"dimgpt {words[0]}: ")
    return stop.value.code


def test_prepare_keeps_what_it_has_made(prepared):
    files = files_of(prepared / "my data")
    names = {path.relative_to(prepared / "my data").as_posix() for path in files}
    assert {"toy/vocab.txt", "toy/config.json"} <= names
    assert "toy/pretraining/stories/train-00000-00000.bin" in names
    assert "toy/finetuning/conversations/train-00000-00000.bin" in names
    assert not [name for name in names if "tmp" in name or "dimgpt-" in name]


def test_a_run_stopped_by_sigterm_goes_on_to_the_same_model(trained, monkeypatch, capsys):
    other = [*TRAIN, "--models-root", "other"]
    run_dir = trained / "other" / "toy-runs" / "pretraining"
    status, _, error = interrupt(trained, other, signal.SIGTERM, run_dir)
    assert status == 143
    assert "Traceback" not in error
    monkeypatch.chdir(trained)
    main(other)
    assert "resuming at step" in capsys.readouterr().out
    weights = [trained / root / "toy" / "model.safetensors" for root in ("other", "modèles")]
    assert sha256_of(weights[0]) == sha256_of(weights[1])
    lines = (run_dir / "history.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    steps = [record["step"] for record in records if record["kind"] == "step"]
    assert steps == list(range(1, NUM_STEPS + 1))
    shutil.rmtree(trained / "other")


def test_a_chat_answers_each_line_until_an_empty_one(here, monkeypatch, capsys):
    typed = io.BytesIO("Bonjour !\n⮜assistant⮞ é 🙂\n\nnot read\n".encode())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(typed, encoding="utf-8"))
    main(["chat", "--model", "modèles/toy-chat", "--sampling.max-new-tokens", "4"])
    shown = capsys.readouterr().out
    assert shown.count("> ") == 3
    assert "not read" not in shown


def test_a_terminal_without_accents_shows_question_marks(here, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    words = ["generate", "--model", "modèles/toy", "--prompt", "Été", "--sampling.temperature", "0"]
    main([*words, "--sampling.max-new-tokens", "2"])
    assert terminal.buffer.getvalue().startswith(b"?t?")


def test_info_describes_machine_and_model(here, capsys):
    main(["info", "--model", "modèles/toy"])
    shown = capsys.readouterr().out
    assert "This machine" in shown
    assert "300 tokens" in shown


def test_info_says_at_which_share_of_the_peak_its_times_are(capsys):
    main(["info", "--sizes"])
    shown = capsys.readouterr().out
    assert "Here, at 40% of a peak of" in shown
    assert "Pretraining, at 40% of a GPU's peak" in shown


def test_a_setting_out_of_range_is_one_line_and_status_1(here):
    process = start(here, ["generate", "--sampling.temperature", "-1"])
    status, out, error = finish(process)
    assert (status, out) == (1, "")
    assert error.strip() == "dimgpt generate: temperature is -1.0: it must be 0 or more"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["train", "--training.batch-size", "0"], "batch_size is 0"),
        (["train", "--training.adam-betas", "0.9", "2"], r"adam_betas is \(0.9, 2.0\)"),
        (["train", "--model.num-heads", "3"], "must be a multiple of 2"),
        ([*TRAIN, "--device", "banana"], "choose auto, cuda, mps or cpu"),
        (["train", "--name", "../up"], "it names folders"),
        (["train", "--name", "demo-chat"], "reserved for chat models"),
        (["train", "--name", "new"], "no vocabulary at .*prepare --name new"),
        (["train", "--name", "le mien"], "no vocabulary at .*prepare --name 'le mien'`"),
        (["finetune", "--name", "new"], "no data at .*prepare --name new"),
        (["finetune", *FOLDERS, "--models-root", "none"], "no model at none/toy: run .* train"),
        (["info", "--preset", "nope"], "choose one of demo"),
        (["info", "--preset", "demo", "--preset=nope"], "choose one of demo"),
        (["info", "--budget", "3x"], "budget is '3x': give minutes, hours or days"),
        (["info", "--model", "empty"], "empty/config.json is missing"),
        (["generate", "--model", "my data"], "config.json is missing"),
        (["generate", "--model", "nothing.pt"], "nothing.pt is missing"),
        (["chat", "--model", "damaged"], "damaged/model.safetensors is missing"),
        (["prepare", "--name", "new", "--sources", "nothing.txt"], "nothing.txt does not exist"),
        (["prepare", "--name", "new", "--sources", "empty"], "empty has no file to read"),
        (["prepare", "--name", "new", "--sources", "binary.txt"], "binary.txt is not UTF-8"),
        (["prepare", "--name", "new", "--sources", "bad.jsonl"], "line 1 is not JSON"),
        (["prepare", "--data.sources.0.name", "x", "--sources", "a"], "give either sources or"),
        (["prepare", *FOLDERS, "--data.vocab-size", "400"], "has 300 tokens: vocab_size is 400"),
        ([*TRAIN, "--model.vocab-size", "500"], "model.vocab_size is 500: .*has 300 tokens"),
        ([*TRAIN, "--model.ffn-dim", "32"], "run of another model .*ffn_dim: 24 -> 32"),
    ],
    ids=lambda value: " ".join(value[:5]) if isinstance(value, list) else "",
)
def test_what_goes_wrong_is_one_line_and_nothing_made_is_lost(trained, here, words, reason):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(make_bad_files(trained.parent / "bad", trained))
        with pytest.raises(SystemExit, match=reason):
            main(words)
        assert complaint(words)
        made = {path.name for path in Path("data").rglob("*") if path.is_file()}
        assert made <= {"lock"}
        assert not Path("models").exists()


def make_bad_files(folder, trained):
    """Make a folder of things that cannot be read, beside links to what is well."""
    if not folder.exists():
        (folder / "empty").mkdir(parents=True)
        (folder / "binary.txt").write_bytes(b"abc\xff\xfe\x00" * 100)
        (folder / "bad.jsonl").write_text("not json\n")
        shutil.copytree(trained / "modèles" / "toy-chat", folder / "damaged")
        (folder / "damaged" / "model.safetensors").unlink()
        (folder / "my data").symlink_to(trained / "my data")
        (folder / "modèles").symlink_to(trained / "modèles")
    return folder


@pytest.mark.parametrize(
    "words", [["train", "--bogus"], ["info", "extra"], ["generate", "--sampling.top-p", "abc"]]
)
def test_flags_that_cannot_be_understood_are_explained_with_status_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert words[1].split(".")[-1].strip("-") in capsys.readouterr().err


@pytest.mark.parametrize("verb", commands.VERBS)
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"python -m dimgpt {verb}" in capsys.readouterr().out


def test_mistyped_verbs_and_presets_are_answered_with_the_nearest_name(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["trian"])
    assert "dimgpt: no verb 'trian' (did you mean 'train'?)" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"'demoo' \(did you mean 'demo'\?\): choose one of"):
        main(["info", "--preset", "demoo"])
    with pytest.raises(SystemExit, match="2"):
        main(["xyzzy"])
    assert capsys.readouterr().err == "dimgpt: no verb 'xyzzy'\n"


def test_the_version_is_that_of_the_package(capsys):
    main(["--version"])
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{capsys.readouterr().out.split()[1]}"' in text


def test_quiet_shows_results_and_no_progress(tmp_path):
    sources = ["--sources", "demo://stories/300"]
    process = start(tmp_path, ["prepare", "--quiet", *FOLDERS, *TOY_DATA, *sources])
    status, out, error = finish(process)
    assert (status, error) == (0, "")
    assert "Prepared sources" in out


def test_a_shell_completes_verbs_and_flags(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--completion", "bash"])
    assert stop.value.code in (0, None)
    script = tmp_path / "complete.sh"
    script.write_text(capsys.readouterr().out, encoding="utf-8")
    ask = "source {}; COMP_WORDS=(dimgpt {}); COMP_CWORD={}; _tyro_dimgpt; echo ${{COMPREPLY[@]}}"
    for typed, number, expected in (("fin", 1, "finetune"), ("chat --prese", 2, "--preset")):
        command = ask.format(script, typed, number)
        found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert found.stdout.split() == [expected]


def test_no_color_makes_help_plain_and_leaves_the_terminal_as_it_was(monkeypatch):
    monkeypatch.setattr(sys, "stdout", terminal := io.StringIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    for plain, wanted in (("", True), ("1", False)):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("NO_COLOR", plain)
        with pytest.raises(SystemExit):
            main(["generate", "--help"])
        assert ("\x1b[" in terminal.getvalue()) == wanted
        assert os.environ["TERM"] == "xterm"
        terminal.seek(0)
        terminal.truncate()


@pytest.mark.parametrize(("words", "status"), [([], 0), (["--help"], 0), (["TRAIN"], 2)])
def test_without_a_verb_all_are_listed(words, status, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == status
    shown = capsys.readouterr().out
    assert all(f"  {verb} " in shown for verb in commands.VERBS)


def test_the_preset_gives_the_defaults(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--preset=dimensiongpt-0.2b", "--help"])
    shown = capsys.readouterr().out
    assert "(default: 2730)" in shown
    assert "(default: 100000)" in shown


def test_ctrl_c_while_preparing_is_one_line_and_loses_nothing(here, monkeypatch, capsys):
    def press_ctrl_c(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(data_commands, "prepare_files", press_ctrl_c)
    with pytest.raises(SystemExit) as stop:
        main(["prepare", *FOLDERS, *TOY_DATA])
    assert stop.value.code == 130
    assert "dimgpt prepare: interrupted" in capsys.readouterr().err


def test_a_second_preparation_of_one_folder_is_refused_until_the_first_has_ended(here, holding):
    sources = ["--sources", "demo://stories/300", "--conversations", "demo://conversations/100"]
    words = ["prepare", *FOLDERS, *TOY_DATA, *sources]
    with holding(here / "my data" / "toy" / "lock") as first:
        assert "another preparation is running in my data" in complaint(words)
        first.kill()
        first.wait()
        main(words)


def test_a_finished_run_says_that_nothing_is_left(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    weights = trained / "modèles" / "toy" / "model.safetensors"
    before = sha256_of(weights)
    main(TRAIN)
    assert "nothing is left to train" in capsys.readouterr().out
    assert sha256_of(weights) == before


def test_the_card_of_a_trained_model_has_its_curves(here):
    for name in ("toy", "toy-chat"):
        files = {path.name for path in (here / "modèles" / name).iterdir()}
        assert "curves.png" in files
    assert "curves.png" in (here / "modèles" / "toy" / "README.md").read_text(encoding="utf-8")


def test_held_out_documents_are_measured(here, capsys):
    main(["evaluate", *FOLDERS, "--device", "cpu"])
    assert "stories" in capsys.readouterr().out


def test_a_model_is_not_measured_on_data_of_another_vocabulary(here, tmp_path):
    shutil.copytree(here / "my data", tmp_path / "data")
    path = tmp_path / "data" / "toy" / "vocab.txt"
    *tokens, last, again = path.read_text(encoding="utf-8").split("\n")
    path.write_text("\n".join([*tokens, again, last]), encoding="utf-8")  # as many as before
    words = ["evaluate", *FOLDERS, "--data-root", str(tmp_path / "data"), "--device", "cpu"]
    assert "another vocabulary" in complaint(words)


def test_a_model_without_a_tokenizer_is_measured_all_the_same(here, tmp_path, capsys):
    save_model(load_model(here / "modèles" / "toy"), tmp_path / "bare")
    main(["evaluate", *FOLDERS, "--model", str(tmp_path / "bare"), "--device", "cpu"])
    assert "stories" in capsys.readouterr().out
