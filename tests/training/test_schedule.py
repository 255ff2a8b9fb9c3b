"""The learning rate at its boundaries."""

import dataclasses
import itertools

import pytest

from dimgpt.config import TrainingConfig
from dimgpt.training.schedule import learning_rate_at

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
