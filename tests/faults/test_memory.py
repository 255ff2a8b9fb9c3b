"""Memory that runs out in a training: how a step is cut changes, and nothing else."""

import dataclasses
import gc
import weakref

import pytest
import torch

from dimgpt.training.journal import read_history

pytestmark = pytest.mark.slow

CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
ERRORS = {
    "CUDA": lambda: torch.OutOfMemoryError("CUDA out of memory"),
    "CPU": lambda: RuntimeError(CPU_MESSAGE),
    "Python": MemoryError,
}


@pytest.fixture(params=ERRORS)
def error(request):
    return ERRORS[request.param]


def fail_where(trainer, is_full, error):
    """Raise an error for the batches that do not fit; return the rows of the others, one by one."""
    real, seen = trainer.stepper.loss_sums, []

    def sums(batch):
        if is_full(batch):
            raise error()
        seen.append(len(batch.inputs))
        return real(batch)

    trainer.stepper.loss_sums = sums
    return seen


def limit_rows(trainer, num_rows, error):
    return fail_where(trainer, lambda batch: len(batch.inputs) > num_rows, error)


def records(trainer, kind):
    return [record for record in read_history(trainer.journal.path) if record["kind"] == kind]


def samples(trainer):
    return trainer.data.steps_read, [record["tokens"] for record in records(trainer, "step")]


def losses(trainer):
    kinds = ("step", "validation")
    return [record["loss"] for kind in kinds for record in records(trainer, kind)]


@pytest.mark.parametrize("num_rows", [1, 2])
def test_the_same_samples_give_the_same_losses_in_smaller_pieces(
    config, make_trainer, error, num_rows, caplog, fault
):
    whole, small = (make_trainer(config, folder=folder) for folder in ("whole", "small"))
    seen = limit_rows(small, num_rows, error)
    whole.fit()
    small.fit()
    assert set(seen) == {num_rows}
    assert samples(small) == samples(whole)
    assert losses(small) == pytest.approx(losses(whole), abs=1e-5)
    assert f"{num_rows} rows at a time" in caplog.text
    assert len(records(small, "notice")) == 1
    fault(20)


def test_nothing_of_a_failed_try_stays_in_the_gradient(config, make_trainer, error, fault):
    config = dataclasses.replace(config, max_steps=1)
    whole, small = (make_trainer(config, folder=folder) for folder in ("whole", "small"))
    tries = iter([False, True])
    fail_where(small, lambda batch: next(tries, False), error)
    whole.fit()
    small.fit()
    assert samples(small) == samples(whole)
    assert losses(small) == pytest.approx(losses(whole), abs=1e-5)
    for a, b in zip(whole.model.parameters(), small.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    fault(20)


def test_a_validation_that_does_not_fit_is_cut_too(config, make_trainer, error, fault):
    config = dataclasses.replace(config, validation_interval=6)
    whole, small = (make_trainer(config, folder=folder) for folder in ("whole", "small"))
    fail_where(small, lambda batch: not small.model.training and len(batch.inputs) > 1, error)
    whole.fit()
    small.fit()
    assert samples(small) == samples(whole)
    assert losses(small) == pytest.approx(losses(whole), abs=1e-5)
    fault(20)


def test_what_memory_holds_is_remembered_when_a_run_goes_on(config, make_trainer, error, fault):
    config = dataclasses.replace(config, validation_interval=2)
    whole = make_trainer(config, folder="whole")
    first = make_trainer(dataclasses.replace(config, max_steps=2))
    limit_rows(first, 2, error)
    resumed = make_trainer(config)
    seen = fail_where(resumed, lambda batch: False, error)
    for trainer in (whole, first, resumed):
        trainer.fit()
    assert set(seen) == {2}
    assert losses(resumed) == pytest.approx(losses(whole), abs=1e-5)
    fault(20)


def test_a_single_row_that_does_not_fit_ends_with_one_line(config, make_trainer, error, fault):
    trainer = make_trainer(config)
    limit_rows(trainer, 0, error)
    with pytest.raises(torch.OutOfMemoryError, match="a single row at a time") as caught:
        trainer.fit()
    assert "\n" not in str(caught.value)
    model = weakref.ref(trainer.model)
    del trainer
    gc.collect()
    assert model() is None  # although the error and its traceback are still there
    fault(20)
