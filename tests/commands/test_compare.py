"""`compare`, through the command line, on two runs of which only the files are there."""

import dataclasses
import json
from pathlib import Path

import pytest

from dimgpt.cli import main
from dimgpt.pipeline.training import _recipe
from dimgpt.presets import PRESETS
from dimgpt.workspace import Workspace

STEP = {"kind": "step", "step": 1, "tokens": 64, "seconds": 2.0, "loss": 4.0, "accuracy": 0.1}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        workspace = Workspace(preset=dataclasses.replace(PRESETS["demo"], name=name))
        folder = workspace.run_dir("pretraining")
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(_recipe(workspace, "pretraining")))
        (folder / "history.jsonl").write_text(json.dumps(STEP) + "\n")


@pytest.mark.slow
@pytest.mark.usefixtures("runs")
def test_a_picture_a_csv_and_tables_are_made_of_a_name_and_a_folder(capsys):
    main(["compare", "one", "models/two-runs/pretraining", "--csv", "curves.csv"])
    assert Path("compare.png").read_bytes().startswith(b"\x89PNG")
    assert len(Path("curves.csv").read_text().splitlines()) == 3
    shown = capsys.readouterr().out
    assert "one-runs/pretraining" in shown
    assert "written: compare.png curves.csv" in shown


@pytest.mark.usefixtures("runs")
def test_an_unknown_run_is_one_line_and_leaves_no_picture():
    with pytest.raises(SystemExit, match=r"dimgpt compare: no run at three, .*: give the folder"):
        main(["compare", "one", "three"])
    assert not Path("compare.png").exists()
