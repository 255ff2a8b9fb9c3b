"""A run that stands still is reported once, and a run that validates is not."""

import threading
import time

import pytest

from dimgpt.training.watchdog import Watchdog

pytestmark = pytest.mark.slow


@pytest.fixture
def watch():
    with Watchdog(least_seconds=0.1) as watchdog:
        for _ in range(4):
            watchdog({"kind": "step"})
        yield watchdog


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if "no step has ended" in r.getMessage()]


def wait_for(number, caplog):
    until = time.monotonic() + 10
    while len(warnings(caplog)) < number and time.monotonic() < until:
        time.sleep(0.01)


def test_each_standstill_is_reported_once(watch, caplog):
    wait_for(1, caplog)
    time.sleep(0.3)
    assert len(warnings(caplog)) == 1
    watch({"kind": "step"})
    watch({"kind": "step"})
    wait_for(2, caplog)
    time.sleep(0.3)
    assert len(warnings(caplog)) == 2
    assert "and a step usually takes" in warnings(caplog)[0]


@pytest.mark.parametrize("rest", [Watchdog.rest, lambda watch: watch({"kind": "validation"})])
def test_nothing_is_said_while_something_else_than_a_step_takes_long(watch, caplog, rest):
    rest(watch)
    time.sleep(0.5)
    assert warnings(caplog) == []


def test_a_step_that_is_usually_slow_is_not_late(caplog):
    with Watchdog(least_seconds=0.1) as watchdog:
        for _ in range(3):
            watchdog({"kind": "step"})
            time.sleep(0.3)
        assert warnings(caplog) == []
    assert "watchdog" not in {thread.name for thread in threading.enumerate() if not thread.daemon}


def test_the_first_step_may_take_long(caplog):
    with Watchdog(least_seconds=0.1) as watchdog:
        watchdog({"kind": "start"})
        time.sleep(0.5)
    assert warnings(caplog) == []


def test_a_training_is_watched_and_ends_with_its_watchdog(config, make_trainer, caplog):
    trainer = make_trainer(config)
    trainer.watchdog.least_seconds = 0.2
    real = trainer.stepper.loss_sums

    def sums(batch):
        if trainer.model.training and trainer.state.step == 4:
            time.sleep(1.0)
        return real(batch)

    trainer.stepper.loss_sums = sums
    trainer.fit()
    assert warnings(caplog)[0].endswith("Ctrl-C saves and stops")
    time.sleep(0.2)
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}
