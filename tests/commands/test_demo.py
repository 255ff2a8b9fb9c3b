"""What `demo` asks of the notebooks; tests/test_notebooks.py runs them."""

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
