"""An update that would spoil the run is left out, and the run knows when to go back."""

import dataclasses
import math

import pytest
import torch

from dimgpt.training.guard import UpdateGuard, Verdict
from dimgpt.training.journal import read_history
from dimgpt.training.optimizer import optimizer_tensors

CPU = torch.device("cpu")


def records(trainer, kind):
    return [record for record in read_history(trainer.journal.path) if record["kind"] == kind]


def snapshot(trainer):
    moments = optimizer_tensors(trainer.optimizer, trainer.model)
    weights = trainer.model.state_dict()
    return tuple([named[name].clone() for name in sorted(named)] for named in (weights, moments))


def equal(first, second):
    return all(
        torch.equal(a, b)
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def spoil_gradients(trainer, steps, value):
    """Put a value into one gradient of some steps, after the loss, which stays finite."""
    real = trainer.stepper._gradient

    def gradient(step, *arguments, **keywords):
        means = real(step, *arguments, **keywords)
        if step in steps:
            trainer.model.token_embedding.weight.grad[3, 2] = value
        return means

    trainer.stepper._gradient = gradient


def judge(guard, *pairs):
    return [Verdict(int(guard.judge(torch.tensor(a), torch.tensor(b)))) for a, b in pairs]


@pytest.mark.slow
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("skip_spikes", [False, True])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_changes_no_bit(config, make_trainer, value, skip_spikes, where):
    trainer = make_trainer(dataclasses.replace(config, skip_spikes=skip_spikes))
    seen = {}
    trainer.journal.observers.append(
        lambda record: (
            seen.update({record["step"]: snapshot(trainer)}) if record["kind"] == "step" else None
        )
    )
    if where == "gradient":
        spoil_gradients(trainer, {3, 4}, value)
    else:
        trainer.data.bad_steps = (3, 4)
    summary = trainer.fit()
    assert equal(seen[2], seen[3])
    assert equal(seen[2], seen[4])
    assert not equal(seen[4], seen[5])
    steps = records(trainer, "step")
    assert [record.get("skipped") for record in steps] == [None] * 2 + ["not finite"] * 2 + [
        None
    ] * 2
    assert steps[-1]["num_skipped"] == summary.num_skipped == 2
    assert "Skipped updates" in summary.rows()
    assert steps[3]["loss_average"] == steps[1]["loss_average"]
    assert "NaN" not in trainer.journal.path.read_text()


def test_skipped_steps_are_resumed_bit_for_bit(config, make_trainer):
    config = dataclasses.replace(config, skip_spikes=True)
    trainers = [make_trainer(config, folder=name) for name in ("whole", "parts", "parts")]
    for trainer in trainers:
        trainer.data.bad_steps = (2, 3, 5)
    trainers[1].config = dataclasses.replace(config, max_steps=3)
    for trainer in trainers:
        trainer.fit()
    assert equal(snapshot(trainers[0]), snapshot(trainers[2]))
    assert trainers[2].state.num_skipped == 3
    assert torch.equal(trainers[0].stepper.guard.measured, trainers[2].stepper.guard.measured)


def test_five_in_a_row_go_back_to_the_checkpoint_and_then_on(config, make_trainer, caplog):
    config = dataclasses.replace(config, max_steps=9, checkpoint_interval=2)
    whole = make_trainer(config, folder="whole")
    whole.fit()
    trainer = make_trainer(config)
    trainer.data.bad_steps = range(4, 9)

    def heal(record):
        if record["kind"] == "notice":
            trainer.data.bad_steps = ()

    trainer.journal.observers.append(heal)
    trainer.fit()
    assert "not finite in the last 5 steps" in caplog.text
    assert "back to the checkpoint of step 2" in caplog.text
    assert [record["step"] for record in records(trainer, "step")] == list(range(1, 10))
    assert equal(snapshot(whole), snapshot(trainer))


def test_the_same_place_twice_stops_with_one_line_and_spoils_nothing(config, make_trainer):
    config = dataclasses.replace(config, max_steps=20, checkpoint_interval=3)
    trainer = make_trainer(config)
    trainer.data.bad_steps = range(4, 20)
    with pytest.raises(FloatingPointError, match=r"^step 8: .*again: lower learning_rate") as error:
        trainer.fit()
    assert "\n" not in str(error.value)
    assert all(p.isfinite().all() for p in trainer.model.parameters())
    saved = trainer.checkpoints.load_latest()
    assert torch.equal(saved.tensors["model"]["final_norm.weight"], trainer.model.final_norm.weight)


def test_without_a_checkpoint_to_go_back_to_it_is_said(config, make_trainer):
    trainer = make_trainer(dataclasses.replace(config, checkpoint_interval=100))
    trainer.data.bad_steps = range(1, 7)
    with pytest.raises(FloatingPointError, match="step 5: .*there is no checkpoint yet"):
        trainer.fit()


def test_only_what_is_six_deviations_above_is_a_spike():
    guard = UpdateGuard(CPU, skip_spikes=True)
    calm = [(2.0 + 0.1 * (-1) ** i, 1.0 + 0.1 * (-1) ** i) for i in range(128)]
    assert set(judge(guard, *calm)) == {Verdict.FINE}
    assert judge(guard, (2.59, 1.0), (-9.0, 0.0), (2.0, 1.59)) == [Verdict.FINE] * 3
    assert judge(guard, (9.0, 1.0)) == [Verdict.SPIKE]
    assert judge(guard, (2.0, 9.0)) == [Verdict.SPIKE]
    assert judge(guard, (2.0, math.inf)) == [Verdict.NOT_FINITE]


def test_a_run_gets_used_to_a_level_that_stays():
    guard = UpdateGuard(CPU, skip_spikes=True)
    judge(guard, *[(2.0, 1.0)] * 100)
    verdicts = judge(guard, *[(5.0, 1.0)] * 10)
    assert verdicts[0] == Verdict.SPIKE
    assert verdicts[-1] == Verdict.FINE


def test_nothing_is_a_spike_before_enough_is_known_or_when_nobody_asks():
    guard = UpdateGuard(CPU, skip_spikes=True)
    assert judge(guard, *[(2.0, 1.0)] * 60, (1e6, 1.0))[-1] == Verdict.FINE
    assert judge(UpdateGuard(CPU, skip_spikes=False), *[(2.0, 1.0)] * 99, (1e6, 1.0))[-1] == 0


@pytest.mark.slow
def test_spikes_are_skipped_in_a_run(config, make_trainer):
    config = dataclasses.replace(
        config, skip_spikes=True, max_steps=68, validation_interval=100, checkpoint_interval=100
    )
    trainer = make_trainer(config)
    spoil_gradients(trainer, {66}, 1e6)
    trainer.fit()
    assert [r["step"] for r in records(trainer, "step") if r.get("skipped") == "spike"] == [66]
