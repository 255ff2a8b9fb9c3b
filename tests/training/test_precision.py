"""Precisions: what they share is the curve."""

import dataclasses

import numpy as np
import pytest
import torch

from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime, choose_runtime
from dimgpt.training.guard import UpdateGuard
from dimgpt.training.journal import read_history
from dimgpt.training.trainer import Trainer

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


class Queue(Runtime):
    """A CPU that says it works through a queue, as a GPU does."""

    is_asynchronous = True


class ScaledCPU(Runtime):
    """A CPU that computes in float32 and scales the loss as float16 needs it."""

    needs_loss_scaling = True


def losses(trainer):
    return [r["loss"] for r in read_history(trainer.journal.path) if r["kind"] == "step"]


def with_runtime(make_trainer, config, runtime, folder):
    made = make_trainer(config, folder=folder)
    torch.manual_seed(0)
    return Trainer(
        Transformer(made.model.config),
        made.data,
        config,
        run_dir=made.folder.path,
        runtime=runtime,
    )


def test_the_curve_in_bf16_follows_fp32_within_noise(config, make_trainer):
    config = dataclasses.replace(
        config,
        max_steps=100,
        decay_steps=100,
        warmup_steps=10,
        validation_interval=100,
        checkpoint_interval=100,
    )
    curves = []
    for precision in ("fp32", "bf16"):
        runtime = choose_runtime(precision, "cpu")
        trainer = with_runtime(make_trainer, config, runtime, precision)
        trainer.fit()
        curves.append(np.array(losses(trainer)))
    smooth = [np.convolve(curve, np.ones(10) / 10, "valid") for curve in curves]
    assert smooth[0][0] - smooth[0][-1] > 2, "something was learned"
    assert np.abs(smooth[0] - smooth[1]).max() < 0.05
    assert not np.array_equal(curves[0], curves[1])


def test_a_device_that_works_ahead_gives_the_same_run(config, make_trainer):
    config = dataclasses.replace(config, max_steps=9, checkpoint_interval=4)
    runs = []
    for kind in (Runtime, Queue):
        trainer = with_runtime(
            make_trainer, config, kind(device=CPU, precision="fp32"), kind.__name__
        )
        trainer.data.bad_steps = (2, 5)
        summary = trainer.fit()
        history = [
            {k: r[k] for k in r if k not in ("seconds", "tokens_per_second", "mfu")}
            for r in read_history(trainer.journal.path)
        ]
        runs.append((history, dataclasses.replace(summary, seconds=0), trainer.model.state_dict()))
    assert runs[0][:2] == runs[1][:2]
    assert all(torch.equal(value, runs[1][2][name]) for name, value in runs[0][2].items())


def test_a_device_that_works_ahead_goes_back_and_loses_no_step_to_a_stop(config, make_trainer):
    config = dataclasses.replace(config, max_steps=12, checkpoint_interval=3)
    runtime = Queue(device=CPU, precision="fp32")
    trainer = with_runtime(make_trainer, config, runtime, "run")
    trainer.data.bad_steps = range(4, 12)

    def heal(record):
        if record["kind"] == "notice":
            trainer.data.bad_steps = ()

    trainer.journal.observers.append(heal)
    trainer.fit()
    steps = [r["step"] for r in read_history(trainer.journal.path) if r["kind"] == "step"]
    assert steps == list(range(1, 13))
    assert trainer.state.num_skipped == 0, "the second time all went well"


def test_scaling_the_loss_changes_no_step(config, make_trainer):
    plain = with_runtime(make_trainer, config, Runtime(device=CPU, precision="fp32"), "plain")
    scaled = with_runtime(make_trainer, config, ScaledCPU(device=CPU, precision="fp32"), "scaled")
    plain.fit()
    scaled.fit()
    assert losses(scaled) == pytest.approx(losses(plain), rel=1e-6)


def test_an_overflow_halves_the_scale_skips_the_step_and_is_no_reason_to_go_back(
    config, make_trainer
):
    trainer = with_runtime(make_trainer, config, ScaledCPU(device=CPU, precision="fp32"), "run")
    real = trainer.stepper._gradient

    def overflow(*arguments, **keywords):
        means = real(*arguments, **keywords)
        if trainer.stepper.guard.scale > 2**10:
            trainer.model.token_embedding.weight.grad[0, 0] = float("inf")
        return means

    trainer.stepper._gradient = overflow
    trainer.config = dataclasses.replace(config, max_steps=8)
    trainer.fit()
    records = [r for r in read_history(trainer.journal.path) if r["kind"] == "step"]
    assert [r.get("skipped") for r in records] == ["float16 overflow"] * 6 + [None] * 2
    assert float(trainer.stepper.guard.scale) == 2**10


def test_the_scale_and_its_count_are_resumed(config, make_trainer):
    runtime = ScaledCPU(device=CPU, precision="fp32")
    first = with_runtime(make_trainer, config, runtime, "run")
    first.stepper.guard.judge(torch.tensor(1.0), torch.tensor(torch.inf))
    first.fit()
    again = with_runtime(make_trainer, config, runtime, "run")
    again.fit()
    assert float(again.stepper.guard.scale) == 2.0**15
    assert int(again.stepper.guard.num_good_steps) == config.max_steps


def test_the_scale_grows_after_2000_good_steps_and_never_falls_under_1():
    guard, fine = UpdateGuard(CPU, scales_loss=True), torch.tensor(1.0)
    for _ in range(2000):
        guard.judge(fine, fine)
    assert float(guard.scale) == 2.0**17
    for _ in range(30):
        guard.judge(fine, torch.tensor(torch.inf))
    assert float(guard.scale) == 1.0
