"""Steps whose loss or gradient is NaN, infinite, or far out of line."""

import dataclasses
import math

import pytest
import torch

from dimgpt.training.journal import read_history
from dimgpt.training.optimizer import optimizer_tensors

pytestmark = pytest.mark.slow

VALUES = [math.nan, math.inf, -math.inf]
PLACES = ["loss", "token_embedding.weight", "blocks.1.attention.query.weight", "final_norm.weight"]


def spoil(trainer, steps, place, value):
    """Multiply the loss of some steps by a value, or put the value into one of their gradients."""
    real_sums, real_gradient = trainer.stepper.loss_sums, trainer.stepper._gradient

    def sums(batch):
        loss, correct = real_sums(batch)
        is_bad = place == "loss" and trainer.model.training and trainer.state.step + 1 in steps
        return loss * value if is_bad else loss, correct

    def gradient(step, *arguments, **keywords):
        means = real_gradient(step, *arguments, **keywords)
        if place != "loss" and step in steps:
            trainer.model.get_parameter(place).grad.view(-1)[3] = value
        return means

    trainer.stepper.loss_sums, trainer.stepper._gradient = sums, gradient


def records(trainer, kind):
    return [record for record in read_history(trainer.journal.path) if record["kind"] == kind]


def snapshot(trainer):
    """Return copies of all parameters and moments."""
    moments = optimizer_tensors(trainer.optimizer, trainer.model)
    named = dict(trainer.model.named_parameters()) | {f"m {n}": t for n, t in moments.items()}
    return {name: tensor.detach().clone() for name, tensor in named.items()}


def equal(first, second):
    return all(torch.equal(first[name], second[name]) for name in first | second)


def snapshots(trainer):
    """Return a dictionary that gets the snapshot after each step."""
    taken = {}

    def observe(record):
        if record["kind"] == "step":
            taken[record["step"]] = snapshot(trainer)

    trainer.journal.observers.append(observe)
    return taken


@pytest.mark.parametrize("settings", [{}, {"skip_spikes": True}, {"optimizer": "muon"}], ids=str)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", VALUES)
def test_what_is_not_finite_changes_no_bit(config, make_trainer, value, place, settings, fault):
    trainer = make_trainer(dataclasses.replace(config, **settings))
    spoil(trainer, {3, 4}, place, value)
    taken = snapshots(trainer)
    summary = trainer.fit()
    assert equal(taken[2], taken[3])
    assert equal(taken[2], taken[4])
    assert not equal(taken[4], taken[5])
    steps = records(trainer, "step")
    skipped = [None] * 2 + ["not finite"] * 2 + [None] * 2
    assert [record.get("skipped") for record in steps] == skipped
    assert steps[-1]["num_skipped"] == summary.num_skipped == 2
    assert "Skipped updates" in summary.rows()
    assert steps[3]["loss_average"] == steps[1]["loss_average"]
    assert "NaN" not in trainer.journal.path.read_text()
    fault(19)


@pytest.mark.parametrize("place", PLACES[:2])
def test_skipped_steps_are_resumed_bit_for_bit(config, make_trainer, place, fault):
    config = dataclasses.replace(config, skip_spikes=True)
    shorter = dataclasses.replace(config, max_steps=3)
    whole, first, second = (
        make_trainer(settings, folder=folder)
        for settings, folder in ((config, "whole"), (shorter, "parts"), (config, "parts"))
    )
    for trainer in (whole, first, second):
        spoil(trainer, {2, 3, 5}, place, math.nan)
        trainer.fit()
    assert equal(snapshot(whole), snapshot(second))
    assert second.state.num_skipped == 3
    assert torch.equal(whole.stepper.guard.measured, second.stepper.guard.measured)
    fault(19)


@pytest.mark.parametrize("place", PLACES)
def test_a_spike_changes_no_bit_where_spikes_are_skipped(config, make_trainer, place, fault):
    config = dataclasses.replace(
        config, skip_spikes=True, max_steps=68, validation_interval=100, checkpoint_interval=100
    )
    trainer = make_trainer(config)
    spoil(trainer, {66}, place, 1e6)
    taken = snapshots(trainer)
    trainer.fit()
    assert [r["step"] for r in records(trainer, "step") if r.get("skipped") == "spike"] == [66]
    assert equal(taken[65], taken[66])
    assert not equal(taken[66], taken[67])
    fault(19)


@pytest.mark.parametrize("place", PLACES[:2])
@pytest.mark.parametrize("value", VALUES)
def test_five_in_a_row_go_back_to_the_checkpoint_and_then_on(
    config, make_trainer, caplog, place, value, fault
):
    config = dataclasses.replace(config, max_steps=9, checkpoint_interval=2)
    whole = make_trainer(config, folder="whole")
    whole.fit()
    trainer = make_trainer(config)
    bad_steps = {4, 5, 6, 7, 8}
    spoil(trainer, bad_steps, place, value)

    def heal(record):
        if record["kind"] == "notice":
            bad_steps.clear()

    trainer.journal.observers.append(heal)
    trainer.fit()
    assert "not finite in the last 5 steps" in caplog.text
    assert "back to the checkpoint of step 2" in caplog.text
    assert [record["step"] for record in records(trainer, "step")] == list(range(1, 10))
    assert equal(snapshot(whole), snapshot(trainer))
    fault(19)


@pytest.mark.parametrize("place", PLACES[:2])
@pytest.mark.parametrize("value", VALUES)
def test_the_same_place_twice_stops_with_one_line_and_spoils_nothing(
    config, make_trainer, place, value, fault
):
    config = dataclasses.replace(config, max_steps=20, checkpoint_interval=3)
    trainer = make_trainer(config)
    spoil(trainer, range(4, 20), place, value)
    taken = snapshots(trainer)
    with pytest.raises(FloatingPointError, match=r"^step 8: .*again: lower learning_rate") as error:
        trainer.fit()
    assert "\n" not in str(error.value)
    assert equal(taken[3], snapshot(trainer))
    saved = trainer.checkpoints.load_latest()
    assert saved.step == 3
    assert torch.equal(saved.tensors["model"]["final_norm.weight"], trainer.model.final_norm.weight)
    fault(19)


@pytest.mark.parametrize("value", VALUES)
def test_without_a_checkpoint_to_go_back_to_it_is_said(config, make_trainer, value, fault):
    trainer = make_trainer(dataclasses.replace(config, checkpoint_interval=100))
    spoil(trainer, range(1, 7), "loss", value)
    with pytest.raises(FloatingPointError, match="step 5: .*there is no checkpoint yet"):
        trainer.fit()
    fault(19)
