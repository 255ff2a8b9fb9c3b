"""Memory that runs out changes how a step is cut, and nothing else."""

import dataclasses

import pytest
import torch

from dimgpt.training.journal import read_history
from dimgpt.training.micro_batches import cut


def records(trainer, kind):
    return [record for record in read_history(trainer.journal.path) if record["kind"] == kind]


def limit_memory(trainer, num_rows, error=torch.OutOfMemoryError):
    """Let everything above some rows run out of memory, and note what was computed."""
    real, seen = trainer.stepper.loss_sums, []

    def sums(batch):
        if len(batch.inputs) > num_rows:
            raise error("CUDA out of memory" if error is not RuntimeError else CPU_MESSAGE)
        seen.append(len(batch.inputs))
        return real(batch)

    trainer.stepper.loss_sums = sums
    return seen


CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"


@pytest.mark.slow
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError, MemoryError])
@pytest.mark.parametrize("num_rows", [1, 2])
def test_the_same_samples_give_the_same_losses_in_smaller_pieces(
    config, make_trainer, error, num_rows, caplog
):
    whole = make_trainer(config, folder="whole")
    whole.fit()
    small = make_trainer(config, folder="small")
    seen = limit_memory(small, num_rows, error)
    small.fit()
    assert set(seen) == {num_rows}
    assert small.data.steps_read == whole.data.steps_read
    first, second = ([r["loss"] for r in records(t, "step")] for t in (whole, small))
    assert second == pytest.approx(first, abs=1e-5)
    first, second = ([r["tokens"] for r in records(t, "step")] for t in (whole, small))
    assert first == second
    assert f"{num_rows} rows at a time" in caplog.text
    assert len(records(small, "notice")) == 1


def test_what_memory_holds_is_remembered_when_a_run_goes_on(config, make_trainer):
    first = make_trainer(dataclasses.replace(config, max_steps=2))
    limit_memory(first, 2)
    first.fit()
    resumed = make_trainer(config)
    seen = []
    real = resumed.stepper.loss_sums
    resumed.stepper.loss_sums = lambda batch: seen.append(len(batch.inputs)) or real(batch)
    resumed.fit()
    assert set(seen) == {2}


def test_a_validation_that_does_not_fit_is_cut_too(config, make_trainer):
    config = dataclasses.replace(config, validation_interval=6)
    whole = make_trainer(config, folder="whole")
    trainer = make_trainer(config)
    real = trainer.stepper.loss_sums

    def sums(batch):
        if not trainer.model.training and len(batch.inputs) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(batch)

    trainer.stepper.loss_sums = sums
    assert trainer.fit().validation_loss == pytest.approx(whole.fit().validation_loss, abs=1e-5)


def test_a_single_row_that_does_not_fit_ends_with_one_line(config, make_trainer):
    trainer = make_trainer(config)
    limit_memory(trainer, 0)
    with pytest.raises(torch.OutOfMemoryError, match="a single row at a time") as error:
        trainer.fit()
    assert "\n" not in str(error.value)


def test_other_errors_are_not_taken_for_memory(config, make_trainer):
    trainer = make_trainer(config)
    trainer.stepper.loss_sums = lambda batch: torch.ones(2) @ torch.ones(3)
    with pytest.raises(RuntimeError, match="size"):
        trainer.fit()


def test_rows_keep_their_order_and_none_is_lost(config, make_trainer):
    batches = make_trainer(config).data.batches(1)
    whole = torch.cat([batch.inputs for batch in batches])
    for num_rows in (1, 3, 4, 9, None):
        pieces = cut(batches, num_rows)
        assert torch.equal(torch.cat([piece.inputs for piece in pieces]), whole)
        assert all(len(piece.inputs) <= (num_rows or 4) for piece in pieces)


def test_nothing_of_a_failed_try_stays_in_the_gradient(config, make_trainer):
    config = dataclasses.replace(config, max_steps=1)
    whole = make_trainer(config, folder="whole")
    trainer = make_trainer(config)
    calls, real = [], trainer.stepper.loss_sums

    def fail_at_the_second(batch):
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(batch)

    trainer.stepper.loss_sums = fail_at_the_second
    whole.fit()
    trainer.fit()
    for a, b in zip(whole.model.parameters(), trainer.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
