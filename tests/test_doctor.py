"""What `doctor` finds in a sound workspace, and in one that was broken in each way it knows."""

import importlib.metadata
import json
import shutil

import pytest

from dimgpt import doctor
from dimgpt.cli import main
from dimgpt.installation import own_requirements, own_version

pytestmark = pytest.mark.slow
TINY = (
    "--model.context-length 32 --model.window-size 8 --model.embedding-dim 16 --model.num-layers 1 "
    "--model.num-heads 2 --model.num-kv-heads 1 --model.ffn-dim 24 --training.max-steps 2 "
    "--training.batch-size 2 --training.warmup-steps 1 --training.validation-batches 1 "
    "--training.precision fp32 --device cpu"
).split()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doctor")
    (folder / "texts").mkdir()
    for number in range(60):
        text = (
            f"Le chat numéro {number} dort dans la cour, puis il mange et part vers la ville. " * 3
        )
        (folder / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("dimgpt.commands.training.save_curves", lambda *_: None)
        flags = ["--data.vocab-size", "300", "--data.num-workers", "1"]
        main(["prepare", "--name", "mine", "--sources", "texts", *flags])
        main(["train", "--name", "mine", *TINY])
    return folder


@pytest.fixture
def report(sound, tmp_path, monkeypatch, capsys):
    """Return a function that runs `doctor` on a copy: exit status, and its findings by subject."""
    shutil.copytree(sound, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setattr(doctor, "_smoke", lambda *_: "fast")

    def run():
        status = 0
        try:
            main(["doctor", "--name", "mine", "--device", "cpu", "--json"])
        except SystemExit as stop:
            status = stop.code
        findings = json.loads(capsys.readouterr().out)
        return status, {
            finding["about"]: (finding["level"], finding["found"]) for finding in findings
        }

    run.folder = tmp_path / "copy"
    return run


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_sound_workspace_has_no_problem(sound, monkeypatch, capsys):
    monkeypatch.chdir(sound)
    main(["doctor", "--name", "mine", "--device", "cpu"])
    shown = capsys.readouterr().out
    assert "✗" not in shown
    assert "✓ data data/mine: 300 tokens in the vocabulary" in shown
    assert "✓ run models/mine-runs/pretraining: resumes at step 2" in shown
    assert "✓ model models/mine: " in shown
    assert "tokens/s" in shown


def test_nothing_prepared_is_a_warning_with_the_command(report):
    shutil.rmtree(report.folder / "data")
    shutil.rmtree(report.folder / "models")
    status, found = report()
    assert found["data data/mine"][0] == "warning"
    assert "python -m dimgpt prepare --name mine" in found["data data/mine"][1]
    assert status == 0


def test_packages_that_are_missing_or_others_are_named(report, monkeypatch):
    requirements = ["absent==1.0", "numpy==0.1", 'nothing>=2; extra == "export"', "torch"]
    monkeypatch.setattr(doctor, "own_requirements", lambda: requirements)
    status, found = report()
    assert status == 1
    assert found["optional: export"][1].startswith("nothing missing: run pip install nothing")
    monkeypatch.setattr(doctor, "own_requirements", lambda: requirements[1:])
    status, found = report()
    assert status == 0
    assert "instead of 0.1" in found["packages"][1]


def test_uninstalled_it_has_the_version_and_requirements_of_the_checkout(monkeypatch):
    installed = own_version(), sorted(map(_squeezed, own_requirements()))

    def is_missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", is_missing)
    monkeypatch.setattr(importlib.metadata, "requires", is_missing)
    assert (own_version(), sorted(map(_squeezed, own_requirements()))) == installed


def _squeezed(requirement):
    return requirement.replace(" ", "").replace("'", '"')


def test_a_kernel_that_computes_something_else_is_a_problem(report, monkeypatch):
    monkeypatch.setattr(doctor, "_kernel_error", lambda name, *_: float("nan"))
    status, found = report()
    assert status == 1
    assert "differ from the naive computation: update torch" in found["attention"][1]


@pytest.mark.parametrize(("chosen", "level"), [("matmul", "warning"), ("sdpa", "problem")])
def test_a_kernel_that_fails_is_a_problem_if_it_would_be_chosen(report, monkeypatch, chosen, level):
    original = doctor._kernel_error
    monkeypatch.setattr(doctor, "fastest_kernel", lambda *_: chosen)

    def compute(name, *others):
        if name == "sdpa":
            raise ArithmeticError("no such kernel")
        return original(name, *others)

    monkeypatch.setattr(doctor, "_kernel_error", compute)
    status, found = report()
    assert found["attention"][0] == level
    assert "sdpa fails here (ArithmeticError): update torch" in found["attention"][1]
    assert status == (level == "problem")


def test_too_little_space_is_a_problem(report, monkeypatch):
    monkeypatch.setattr(doctor, "available_memory", lambda _: 10)
    status, found = report()
    assert status == 1
    assert "of memory: choose a smaller one" in found["preset mine"][1]


def test_a_step_for_which_memory_is_short_is_a_problem(sound, report, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(sound)
    monkeypatch.setattr(doctor, "measure_micro_batch", lambda *_, **__: None)
    status, found = report()
    assert status == 1
    assert "out of memory with one row" in found["a step of training"][1]


def test_a_damaged_token_file_is_named(report):
    [path] = (report.folder / "data/mine/pretraining/texts").glob("train-*.bin")
    flip(path)
    status, found = report()
    assert status == 1
    assert path.name in found["data data/mine"][1]


def test_a_damaged_model_is_named(report):
    flip(report.folder / "models/mine/model.safetensors")
    status, found = report()
    assert status == 1
    assert "model.safetensors" in found["model models/mine"][1]


def test_a_run_whose_checkpoints_are_all_damaged_is_a_problem(report):
    for path in (report.folder / "models/mine-runs/pretraining/checkpoints").glob(
        "*/*.safetensors"
    ):
        flip(path)
    status, found = report()
    assert status == 1
    assert "step-00000002 are damaged" in found["run models/mine-runs/pretraining"][1]


def test_a_run_that_would_be_refused_says_why(report, monkeypatch):
    monkeypatch.setattr(doctor, "fingerprint_data", lambda *_: "other")
    status, found = report()
    assert status == 1
    assert "data changed since step 2" in found["run models/mine-runs/pretraining"][1]
