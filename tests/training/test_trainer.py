"""Claims about a run: its arithmetic, its resuming, its stopping."""

import dataclasses
import math
import os
import shutil
import signal

import numpy as np
import pytest
import torch

from dimgpt.training.journal import read_history
from dimgpt.training.run_state import RunState


def same(first, second):
    weights = zip(first.model.parameters(), second.model.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in weights)


def records(trainer, kind):
    return [record for record in read_history(trainer.journal.path) if record["kind"] == kind]


@pytest.mark.slow
def test_4_steps_equal_2_steps_a_save_and_2_more_elsewhere(config, make_trainer):
    config = dataclasses.replace(config, max_steps=4)
    whole = make_trainer(config, folder="whole")
    whole.fit()
    make_trainer(dataclasses.replace(config, max_steps=2), folder="parts").fit()
    resumed = make_trainer(config, folder="parts")
    resumed.fit()
    assert resumed.data.steps_read == [3, 4]
    assert same(whole, resumed)
    keys = ("step", "tokens", "loss", "loss_average", "learning_rate", "grad_norm")
    first, second = ([[r[k] for k in keys] for r in records(t, "step")] for t in (whole, resumed))
    assert first == second


@pytest.mark.slow
def test_micro_batches_equal_one_large_batch(config, make_trainer):
    config = dataclasses.replace(config, max_steps=1)
    small = make_trainer(config, folder="small")
    large_config = dataclasses.replace(config, batch_size=8, accumulation_steps=1)
    large = make_trainer(large_config, folder="large")
    small.fit()
    large.fit()
    assert records(small, "step")[0]["loss"] == pytest.approx(
        records(large, "step")[0]["loss"], rel=1e-6
    )
    for a, b in zip(small.model.parameters(), large.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_one_batch_can_be_overfitted(config, make_trainer):
    steps = 150
    config = dataclasses.replace(
        config,
        max_steps=steps,
        decay_steps=steps,
        checkpoint_interval=steps,
        validation_interval=steps,
    )
    trainer = make_trainer(config)
    fixed = trainer.data.batches(1)
    trainer.data.batches = lambda step: fixed
    assert trainer.fit().loss < 0.1


@pytest.mark.slow
def test_every_parameter_is_in_one_group_and_moves(config, make_trainer):
    trainer = make_trainer(dataclasses.replace(config, max_steps=1))
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    groups = trainer.optimizer.param_groups
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in trainer.model.parameters())
    assert all(p.dim() == 1 for p in groups[1]["params"])
    assert [group["weight_decay"] for group in groups] == [config.weight_decay, 0.0]
    trainer.fit()
    for name, parameter in trainer.model.named_parameters():
        assert not torch.equal(parameter, before[name]), name


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_the_next_fit_goes_on(config, make_trainer, number):
    whole = make_trainer(config, folder="whole")
    whole.fit()

    def stop(record):
        if record["kind"] == "step" and record["step"] == 3:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    stopped = make_trainer(config, observers=[stop])
    if number == signal.SIGTERM:
        with pytest.raises(SystemExit) as status:
            stopped.fit()
        assert status.value.code == 143
    else:
        assert not stopped.fit().is_finished
    assert signal.getsignal(number) == handler
    resumed = make_trainer(config)
    assert resumed.fit().is_finished
    assert resumed.data.steps_read == [4, 5, 6]
    assert same(whole, resumed)


@pytest.mark.slow
def test_running_a_finished_run_again_changes_nothing(config, make_trainer):
    first = make_trainer(config)
    first.fit()
    history = first.journal.path.read_text()
    again = make_trainer(config)
    assert again.fit().step == config.max_steps
    assert again.data.steps_read == []
    assert same(first, again)
    assert again.journal.path.read_text().startswith(history)


@pytest.mark.slow
def test_a_changed_batch_size_is_allowed_and_shown(config, make_trainer):
    make_trainer(dataclasses.replace(config, max_steps=2)).fit()
    changed = dataclasses.replace(config, batch_size=2, accumulation_steps=4)
    seen = []
    make_trainer(changed, observers=[seen.append]).fit()
    assert seen[0]["kind"] == "start"
    assert seen[0]["changes"] == {
        "batch_size": "4 -> 2",
        "accumulation_steps": "2 -> 4",
        "max_steps": "2 -> 6",
    }


@pytest.mark.slow
def test_the_history_holds_every_step_once_after_a_crash(config, make_trainer):
    def crash(record):
        if record["kind"] == "step" and record["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer(config, observers=[crash]).fit()
    trainer = make_trainer(config)
    trainer.fit()
    assert [record["step"] for record in records(trainer, "step")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_validation_gives_bits_per_byte_of_the_targets_bytes(config, make_trainer):
    trainer = make_trainer(config, byte_counts=np.full(32, 4, dtype=np.int32))
    summary = trainer.fit()
    assert summary.bits_per_byte == pytest.approx(
        summary.validation_loss / math.log(2) / 4, rel=1e-6
    )


@pytest.mark.slow
def test_the_best_checkpoint_is_the_one_of_the_lowest_validation_loss(config, make_trainer):
    config = dataclasses.replace(config, max_steps=12, decay_steps=12)
    trainer = make_trainer(config)
    trainer.fit()
    best = min(records(trainer, "validation"), key=lambda record: record["loss"])
    kept = [path.name for path in trainer.checkpoints.folder.glob("best-*")]
    assert kept == [f"best-{best['step']:08d}"]


def scripted(trainer, losses):
    """Let the validations of a trainer measure these losses, one after the other."""
    values = iter(losses)
    trainer._measure = lambda stop: {"loss": next(values), "accuracy": 0.0}
    return trainer


def kept_checkpoints(trainer):
    return sorted(path.name for path in trainer.checkpoints.folder.iterdir())


@pytest.mark.slow
def test_the_two_best_and_the_last_are_kept_where_that_is_asked_for(config, make_trainer):
    keeping = dataclasses.replace(
        config, max_steps=18, decay_steps=18, keep_checkpoints=1, keep_best=2
    )
    losses = [5.0, 3.0, math.nan, 4.0, 9.0, 4.5]  # after the steps 3, 6, 9, 12, 15, 18
    trainer = scripted(make_trainer(keeping, folder="two"), losses)
    trainer.fit()
    assert kept_checkpoints(trainer) == ["best-00000006", "best-00000012", "step-00000018"]
    one = dataclasses.replace(keeping, keep_best=1)
    trainer = scripted(make_trainer(one, folder="one"), losses)
    trainer.fit()
    assert kept_checkpoints(trainer) == ["best-00000006", "step-00000018"]


@pytest.mark.slow
def test_a_resumed_run_keeps_the_best_of_all_its_sittings(config, make_trainer):
    keeping = dataclasses.replace(config, keep_checkpoints=1, keep_best=2)
    scripted(make_trainer(keeping), [3.0, 4.0]).fit()
    longer = dataclasses.replace(keeping, max_steps=12)
    trainer = scripted(make_trainer(longer), [5.0, 3.5])
    trainer.fit()
    assert kept_checkpoints(trainer) == ["best-00000003", "best-00000012", "step-00000012"]
    assert trainer.state.best_loss == 3.0


def test_a_checkpoint_of_an_older_version_has_its_lowest_loss():
    state = RunState.from_json({"step": 4, "best_loss": 3.0})
    assert not state.add_validation({"loss": 3.5})
    assert state.num_validations_since_best == 1
    assert state.add_validation({"loss": 3.5}, keep=2)
    assert state.lowest_losses == [3.0, 3.5]
    assert RunState.from_json({"step": 4, "best_loss": None}).best_loss == math.inf


@pytest.mark.slow
def test_patience_counts_validations_without_a_lower_loss_also_where_two_are_kept(
    config, make_trainer
):
    patient = dataclasses.replace(
        config, max_steps=30, decay_steps=30, keep_best=2, patience=2, validation_interval=1
    )
    trainer = scripted(make_trainer(patient), [5.0, 3.0, 4.0, 3.5, 1.0])
    assert trainer.fit().step == 4
    assert {"best-00000002", "best-00000004"} <= set(kept_checkpoints(trainer))


@pytest.mark.slow
def test_a_fixed_prompt_is_sampled_now_and_then_and_at_the_end(config, make_trainer):
    config = dataclasses.replace(config, sample_interval=4)
    trainer = make_trainer(config, sample=lambda: "Il était une fois")
    trainer.fit()
    assert [record["step"] for record in records(trainer, "sample")] == [4, 6]


@pytest.mark.slow
def test_a_score_joins_each_validation_and_changes_no_step(config, make_trainer):
    def watched(config, folder):
        def score():
            assert not trainer.model.training
            with torch.no_grad():
                return {"mean": trainer.model(torch.arange(8)[None]).mean().item()}

        trainer = make_trainer(config, folder=folder, score=score)
        trainer.fit()
        return trainer

    plain, whole = make_trainer(config, folder="plain"), watched(config, "whole")
    plain.fit()
    watched(dataclasses.replace(config, max_steps=3), "parts")
    resumed = watched(config, "parts")
    assert same(plain, whole)
    assert same(whole, resumed)
    means = [
        [(r["step"], r["scores"]["mean"]) for r in records(t, "validation")]
        for t in (whole, resumed)
    ]
    assert [step for step, _ in means[0]] == [3, 6]
    assert means[0] == means[1]


@pytest.mark.slow
def test_dropout_resumes_bit_for_bit(config, make_trainer):
    trainer = make_trainer(config, folder="whole")
    model = dataclasses.replace(trainer.model.config, dropout=0.3)
    whole = make_trainer(config, folder="whole", model=model)
    whole.fit()
    make_trainer(dataclasses.replace(config, max_steps=4), folder="parts", model=model).fit()
    resumed = make_trainer(config, folder="parts", model=model)
    resumed.fit()
    assert same(whole, resumed)


@pytest.mark.slow
def test_a_run_writes_why_it_ended(config, make_trainer):
    def interrupt(record):
        if record["kind"] == "step" and record["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = make_trainer(config, observers=[interrupt])
    stopped.fit()
    finished = make_trainer(config)
    finished.fit()
    assert [record["reason"] for record in records(finished, "end")] == ["SIGINT", "finished"]
    slow = dataclasses.replace(
        config, patience=1, learning_rate=1e-30, min_learning_rate=0.0, max_steps=12
    )
    impatient = make_trainer(slow, folder="impatient")
    impatient.fit()
    assert [record["reason"] for record in records(impatient, "end")] == ["out of patience"]

    def fail(record):
        if record["kind"] == "step":
            raise RuntimeError("no more power")

    failing = make_trainer(config, folder="failing", observers=[fail])
    with pytest.raises(RuntimeError):
        failing.fit()
    assert records(failing, "end")[0]["reason"] == "RuntimeError: no more power"


@pytest.mark.slow
def test_after_a_power_cut_a_run_says_what_was_lost(config, make_trainer, caplog):
    config = dataclasses.replace(config, checkpoint_interval=4)
    run = make_trainer(config)
    run.fit()
    # As a cut would leave it: the last checkpoint is missing, the history goes on to its last line.
    newest = run.folder.checkpoints.path_of("step", 6)
    shutil.rmtree(newest)
    make_trainer(config).fit()
    text = "the run ended without saving: 2 steps (0 minutes) after the checkpoint are repeated"
    assert [record["text"] for record in records(run, "notice")] == [text]
    assert text in caplog.text
    assert [record["step"] for record in records(run, "step")] == [1, 2, 3, 4, 5, 6]
