"""What a tracker shows is what the history holds; one that fails stops nothing."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dimgpt.training.journal import read_history
from dimgpt.training.trackers import open_trackers

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def expected(trainer, kind, key):
    records = read_history(trainer.journal.path)
    return [(r["step"], r[key]) for r in records if r["kind"] == kind]


def stop_after(step):
    def observe(record):
        if record["kind"] == "step" and record["step"] == step:
            raise KeyboardInterrupt

    return observe


class WandbStub(SimpleNamespace):
    """Stands in for the package: remembers what it is told."""

    def __init__(self, *, fails=False):
        super().__init__(runs=[], fails=fails)

    def init(self, **options):
        run = SimpleNamespace(options=options, logged=[], defined=[], is_finished=False)
        run.define_metric = lambda *arguments, **keywords: run.defined.append(arguments[0])

        def log(values):
            if self.fails:
                raise ConnectionError("no network")
            run.logged.append(values)

        def finish():
            run.is_finished = True

        run.log, run.finish = log, finish
        self.runs.append(run)
        return run


@pytest.fixture
def wandb(monkeypatch):
    stub = WandbStub()
    monkeypatch.setitem(sys.modules, "wandb", stub)
    return stub


def test_tensorboard_reads_the_curves_of_a_run_that_was_killed_and_went_on(config, make_trainer):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = dataclasses.replace(config, trackers=("tensorboard",))
    with pytest.raises(KeyboardInterrupt):
        make_trainer(config, observers=[stop_after(4)]).fit()
    trainer = make_trainer(config)
    trainer.fit()
    events = accumulator.EventAccumulator(str(trainer.folder.path / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/learning_rate", "validation/accuracy"} <= set(
        events.Tags()["scalars"]
    )
    for kind, tag, key in (
        ("step", "train/loss", "loss"),
        ("validation", "validation/loss", "loss"),
    ):
        shown = [(event.step, event.value) for event in events.Scalars(tag)]
        wanted = expected(trainer, kind, key)
        assert [step for step, _ in shown] == [step for step, _ in wanted], "no step twice"
        assert [v for _, v in shown] == pytest.approx([v for _, v in wanted], rel=1e-6)


def test_trackio_keeps_the_curves_on_this_machine(tmp_path):
    pytest.importorskip("trackio")
    code = f"""
import torch
from pathlib import Path
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import choose_runtime
from dimgpt.training.trainer import Trainer, TrainingConfig
from toy_training import MODEL, ToyData
for steps in (2, 4):
    config = TrainingConfig(batch_size=2, accumulation_steps=1, warmup_steps=1, max_steps=steps,
        validation_interval=2, validation_batches=1, precision="fp32", trackers=("trackio",))
    trainer = Trainer(Transformer(MODEL), ToyData(config), config,
        run_dir=Path({str(tmp_path / "toy-runs" / "pretraining")!r}),
        runtime=choose_runtime("fp32", "cpu"))
    trainer.fit()
import trackio
runs = trackio.Api().runs("dimgpt")
print("RUNS", len(list(runs)))
from trackio.sqlite_storage import SQLiteStorage
for run in SQLiteStorage.get_runs("dimgpt"):
    logs = SQLiteStorage.get_logs("dimgpt", run)
    print("STEPS", [log["step"] for log in logs if "train/loss" in log])
"""
    environment = os.environ | {
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "tensorboard failed" not in done.stderr, done.stderr
    assert "RUNS 1" in done.stdout, done.stderr
    assert "STEPS [1, 2, 3, 4]" in done.stdout, done.stdout


def test_wandb_gets_the_curves_and_keeps_one_id_for_one_run(config, make_trainer, wandb):
    config = dataclasses.replace(config, trackers=("wandb",))
    with pytest.raises(KeyboardInterrupt):
        make_trainer(config, observers=[stop_after(4)]).fit()
    trainer = make_trainer(config)
    trainer.fit()
    first, second = wandb.runs
    assert first.options["id"] == second.options["id"]
    kept = json.loads((trainer.folder.path / "trackers.json").read_text())
    assert kept == {"wandb_run_id": first.options["id"]}
    assert first.options["resume"] == "allow"
    assert first.options["config"]["batch_size"] == 4
    assert first.is_finished, "also when the run was broken off"
    assert second.is_finished
    steps = [values["step"] for values in second.logged if "train/loss" in values]
    assert steps == [3, 4, 5, 6]
    other = make_trainer(config, folder="other")
    other.fit()
    assert wandb.runs[2].options["id"] != first.options["id"]


def test_a_tracker_that_fails_is_left_alone_and_said_once(config, make_trainer, wandb, caplog):
    wandb.fails = True
    trainer = make_trainer(dataclasses.replace(config, trackers=("wandb",)))
    assert trainer.fit().is_finished
    assert caplog.text.count("wandb failed (no network)") == 1


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_package_that_is_missing_is_named_before_a_step_is_taken(
    config, make_trainer, monkeypatch, name
):
    module = "torch.utils.tensorboard" if name == "tensorboard" else name
    monkeypatch.setitem(sys.modules, module, None)
    trainer = make_trainer(dataclasses.replace(config, trackers=(name,)))
    with pytest.raises(ImportError, match=f"pip install {name}"):
        trainer.fit()
    assert trainer.data.steps_read == []


def test_what_was_skipped_or_is_no_number_is_not_shown(tmp_path, wandb):
    with open_trackers(("wandb",), tmp_path, step=0, settings={}) as (watch,):
        watch({"kind": "step", "step": 1, "loss": None, "accuracy": None, "num_skipped": 1})
        watch({"kind": "sample", "step": 1, "text": "Il"})
        watch({"kind": "notice", "step": 1, "text": "memory"})
    assert wandb.runs[0].logged == [{"train/num_skipped": 1, "step": 1}]
