"""The learning rate at its boundaries."""

import dataclasses
import itertools

import pytest

from dimgpt.config import TrainingConfig
from dimgpt.training.optimizer import learning_rate_at

PUBLISHED = TrainingConfig()


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.0),
        (1, 3e-7),
        (1_000, 3e-4),
        (2_000, 6e-4),
        (52_000, 3.3e-4),
        (102_000, 6e-5),
        (500_000, 6e-5),
    ],
)
def test_the_published_schedule(step, rate):
    assert learning_rate_at(step, PUBLISHED) == pytest.approx(rate, rel=1e-9)


def test_it_never_rises_after_the_warm_up():
    rates = [learning_rate_at(step, PUBLISHED) for step in range(2_000, 110_000, 500)]
    assert all(a >= b for a, b in itertools.pairwise(rates))


def test_without_warm_up_it_begins_at_the_peak():
    config = dataclasses.replace(PUBLISHED, warmup_steps=0)
    assert learning_rate_at(0, config) == 6e-4


LINEAR = dataclasses.replace(PUBLISHED, schedule="linear")
WSD = dataclasses.replace(PUBLISHED, schedule="wsd", decay_steps=20_000)


@pytest.mark.parametrize(
    ("config", "step", "height"),
    [
        (LINEAR, 1_000, None),
        (LINEAR, 2_000, 1.0),
        (LINEAR, 27_000, 0.75),
        (LINEAR, 102_000, 0.0),
        (LINEAR, 500_000, 0.0),
        (WSD, 1_000, None),
        (WSD, 2_000, 1.0),
        (WSD, 80_000, 1.0),
        (WSD, 85_000, 0.5),
        (WSD, 100_000, 0.0),
        (WSD, 200_000, 0.0),
        (dataclasses.replace(WSD, cooldown="linear"), 80_000, 1.0),
        (dataclasses.replace(WSD, cooldown="linear"), 85_000, 0.75),
        (dataclasses.replace(WSD, cooldown="linear"), 100_000, 0.0),
    ],
)
def test_the_other_schedules_at_their_boundaries(config, step, height):
    expected = 3e-4 if height is None else 6e-5 + height * (6e-4 - 6e-5)
    assert learning_rate_at(step, config) == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_a_stable_run_is_the_same_before_the_fall_wherever_it_ends():
    longer = dataclasses.replace(WSD, max_steps=150_000)
    assert all(learning_rate_at(s, WSD) == learning_rate_at(s, longer) for s in range(80_001))
