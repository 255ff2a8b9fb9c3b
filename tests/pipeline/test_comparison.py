"""What several runs show side by side; their folders are written here, without training."""

import csv
import dataclasses
import json
import os

import pytest

from dimgpt.config import LoraConfig
from dimgpt.model.flops import training_flops_per_token
from dimgpt.pipeline.comparison import compare_runs
from dimgpt.pipeline.training import _recipe
from dimgpt.presets import PRESETS
from dimgpt.settings import override
from dimgpt.workspace import Workspace

DEMO = PRESETS["demo"]


def record(kind, step, loss, **more):
    values = {"tokens": step * 100, "seconds": step * 1800.0, "loss": loss, "accuracy": 0.5}
    return {"kind": kind, "step": step, **values, **more}


RECORDS = (
    {"kind": "start", "step": 0, "tokens": 0, "seconds": 0.1, "max_steps": 4, "changes": {}},
    record("step", 1, 5.0),
    record("step", 2, None),
    record("validation", 2, 3.0, bits_per_byte=1.25),
    record("step", 4, 2.0),
    record("validation", 4, 3.5, bits_per_byte=1.5),
)


@pytest.fixture
def write_run(tmp_path):
    """Write the folder of a run as `Trainer` does, and return its path."""

    def write(name="toy", *, root="models", stage="pretraining", records=RECORDS, rest="", **more):
        lora = more.pop("lora", DEMO.lora)
        config = dataclasses.replace(getattr(DEMO, stage), **more)
        preset = override(DEMO, name=name, lora=lora, **{stage: config})
        workspace = Workspace(preset=preset, models_root=tmp_path / root)
        folder = workspace.run_dir(stage)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(_recipe(workspace, stage)))
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / "history.jsonl").write_text(lines + rest)
        return folder

    return write


@pytest.fixture
def compare(tmp_path):
    return lambda *runs: compare_runs(runs, models_root=tmp_path / "models")


def lines(figure, panel):
    axes = figure.axes[panel]
    return [line.get_xdata().tolist() for line in axes.lines]


def test_only_settings_that_differ_are_rows(write_run, compare):
    one, two = write_run("one"), write_run("two", seed=7, max_steps=9)
    assert compare(one, two).settings.header == (
        "setting",
        "one-runs/pretraining",
        "two-runs/pretraining",
    )
    old = DEMO.pretraining
    assert [row[0] for row in compare(one, two).settings.rows if row[0] != "data"] == [
        "training.max_steps",
        "training.seed",
    ]
    assert ("training.seed", str(old.seed), "7") in compare(one, two).settings.rows


def test_a_setting_that_one_stage_lacks_is_a_dash(write_run, compare):
    write_run("toy")
    rows = {row[0]: row[1:] for row in compare("toy", write_run(stage="finetuning")).settings.rows}
    assert rows["stage"] == ("pretraining", "finetuning")
    assert rows["lora.rank"] == ("–", "0")


def test_the_results_are_those_of_the_last_record(write_run, compare):
    results = compare(write_run()).results
    flops = training_flops_per_token(DEMO.model) * 400
    row = dict(zip(results.header, results.rows[0], strict=True))
    assert row == {
        "run": "toy-runs/pretraining",
        "steps": "4",
        "tokens": "400",
        "FLOPs": f"{flops:.2e}",
        "hours": "2",
        "best validation loss": "3",
        "last validation loss": "3.5",
        "bits per byte": "1.5",
    }


def test_frozen_weights_below_adapters_cost_fewer_flops(write_run, compare):
    whole = write_run("whole", stage="finetuning")
    adapters = write_run("adapters", stage="finetuning", lora=LoraConfig(rank=2))
    costs = [rows[0]["flops"] for rows in compare(whole, adapters).curves.values()]
    frozen = training_flops_per_token(DEMO.model, is_frozen=True)
    assert costs == [100 * training_flops_per_token(DEMO.model), 100 * frozen]


def test_losses_are_drawn_against_tokens_hours_and_flops(write_run, compare):
    figure = compare(write_run("one"), write_run("two")).plot()
    flops = training_flops_per_token(DEMO.model)
    assert lines(figure, 0) == [[100, 200, 400], [200, 400]] * 2
    assert lines(figure, 1) == [[0.5, 1, 2], [1, 2]] * 2
    assert lines(figure, 2)[1] == [200 * flops, 400 * flops]
    one, _, two, _ = (line.get_color() for line in figure.axes[0].lines)
    assert one != two
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["one-runs/pretraining", "two-runs/pretraining", "training", "validation"]


def test_the_csv_has_each_record_once_and_nothing_where_nothing_was_measured(write_run, compare):
    rows = list(csv.DictReader(compare(write_run()).to_csv().splitlines()))
    assert [(row["kind"], row["step"], row["loss"]) for row in rows] == [
        ("step", "1", "5.0"),
        ("step", "2", ""),
        ("validation", "2", "3.0"),
        ("step", "4", "2.0"),
        ("validation", "4", "3.5"),
    ]
    assert [row["bits_per_byte"] for row in rows] == ["", "", "1.25", "", "1.5"]
    assert {row["run"] for row in rows} == {"toy-runs/pretraining"}


def test_runs_of_the_same_name_are_told_apart(write_run, compare):
    runs = [write_run(root=root) for root in ("models/seed-1", "models/seed-2")]
    labels = ["seed-1/toy-runs/pretraining", "seed-2/toy-runs/pretraining"]
    assert list(compare(*runs).curves) == labels
    assert list(compare(*runs, os.path.relpath(runs[0])).curves) == labels


def test_a_line_that_is_being_written_is_left_out(write_run, compare):
    torn = write_run("torn", rest='{"kind": "step", "st')
    assert compare(torn).results.rows[0][1:] == compare(write_run()).results.rows[0][1:]


def test_a_run_before_its_first_validation_is_shown(write_run, compare):
    begun = compare(write_run(records=RECORDS[:2]))
    assert begun.results.rows[0][-3:] == ("–", "–", "–")
    assert lines(begun.plot(), 0) == [[100], []]


@pytest.mark.parametrize("run", ["absent", "models/toy-runs"])
def test_what_is_no_run_is_refused_with_what_to_give(run, write_run, compare):
    write_run()
    with pytest.raises(FileNotFoundError, match=f"no run at {run}.*: give the folder of a run"):
        compare(run)


def test_a_run_without_a_step_is_refused(write_run, compare):
    folder = write_run(records=RECORDS[:1])
    with pytest.raises(FileNotFoundError, match=r"history.jsonl has no step yet: start"):
        compare(folder)
    (folder / "history.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"history.jsonl has no step yet: start"):
        compare(folder)


def test_no_run_at_all_is_refused(compare):
    with pytest.raises(ValueError, match="no run to compare: give folders"):
        compare()
