"""What `demo` asks of the notebooks; tests/test_notebooks.py runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dimgpt.cli import main
from dimgpt.commands import models


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The notebooks that were executed, with where each was written and its parameters."""
    monkeypatch.chdir(tmp_path)
    for name in ("create_data", "training", "testing"):
        Path(f"{name}.ipynb").touch()
    calls = []
    monkeypatch.setattr(
        models, "_execute", lambda *call: calls.append((call[0].stem, call[1].as_posix(), call[2]))
    )
    return calls


def test_a_seed_is_that_of_both_trainings_and_names_the_folder_of_their_models(runs, capsys):
    main(["demo", "--seed", "3"])
    places = {"MODELS_ROOT": "models/demo-seed-3"}
    assert [(name, parameters) for name, _, parameters in runs] == [
        ("create_data", {}),
        ("training", {"STAGE": "pretraining", "SEED": 3, **places}),
        ("training", {"STAGE": "finetuning", "SEED": 3, **places}),
        ("testing", places),
    ]
    assert runs[-1][1] == "models/demo-seed-3/demo-runs/notebooks/4-testing.ipynb"
    assert str(Path("models/demo-seed-3/demo-chat")) in capsys.readouterr().out


def test_without_a_seed_the_preset_keeps_its_own(runs):
    main(["demo"])
    assert [parameters.get("SEED") for *_, parameters in runs] == [None] * 4
    assert {parameters["MODELS_ROOT"] for *_, parameters in runs[1:]} == {"models"}
    assert runs[0][1] == "models/demo-runs/notebooks/1-create_data.ipynb"


def test_a_seed_below_zero_is_refused_before_anything_runs(runs):
    with pytest.raises(SystemExit, match="seed is -1"):
        main(["demo", "--seed", "-1"])
    assert runs == []


@pytest.mark.slow
def test_two_demos_of_one_folder_run_at_the_same_time(tmp_path):
    import nbformat  # it takes a second

    cells = ["PRESET = ''\nSEED = 0", "import time; time.sleep(1); print('seed', SEED)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python"}
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, tmp_path / "training.ipynb")
    code = (
        "import sys\nfrom pathlib import Path\nfrom dimgpt.commands.models import _execute\n"
        "_execute(Path('training.ipynb'), Path(f'out-{sys.argv[1]}.ipynb'), {'SEED': sys.argv[1]})"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    demos = [
        subprocess.Popen(
            [sys.executable, "-c", code, seed],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in ("3", "4")
    ]
    for seed, demo in zip(("3", "4"), demos, strict=True):
        shown, errors = demo.communicate(timeout=100)
        assert demo.returncode == 0, errors
        assert f"seed {seed}" in shown
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"training.ipynb", "out-3.ipynb", "out-4.ipynb"}
