"""The search for the fastest micro-batch, with measurements that are made up, and real ones."""

import dataclasses

import pytest
import torch

from dimgpt.config import TrainingConfig
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import choose_runtime
from dimgpt.training.micro_batch_search import (
    Measurement,
    candidate_sizes,
    divide,
    fastest,
    measure_micro_batch,
    search,
    wants_micro_batch_search,
    with_fastest_micro_batch,
)

CPU = choose_runtime("fp32", "cpu")
SIZES = [1, 2, 4, 8, 16, 32, 64]


def made_up(speeds, *, bytes_per_row=1, asked=None):
    """Measure what `speeds` says; sizes that it does not name are out of memory."""

    def measure(size):
        if asked is not None:
            asked.append(size)
        if size not in speeds:
            return None
        return Measurement(
            batch_size=size, tokens_per_second=speeds[size], peak_bytes=size * bytes_per_row
        )

    return measure


def test_candidates_divide_the_global_batch_and_about_double():
    assert candidate_sizes(1024, context_length=512) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert candidate_sizes(36, context_length=512) == [1, 2, 4, 9, 18, 36]
    assert candidate_sizes(7, context_length=512) == [1, 7]
    assert candidate_sizes(1024, context_length=2**17) == [1]


def test_it_climbs_while_it_gets_faster_and_takes_the_fastest():
    asked = []
    speeds = {4: 100.0, 8: 150.0, 16: 170.0, 32: 160.0, 64: 900.0}
    tried = search(made_up(speeds, asked=asked), SIZES, start=4, free_bytes=10**6)
    assert asked == [4, 8, 16, 32]
    assert fastest(tried) == 16


def test_sizes_out_of_memory_end_the_climb():
    asked = []
    speeds = {4: 100.0, 8: 150.0, 16: 170.0}
    tried = search(made_up(speeds, asked=asked), SIZES, start=4, free_bytes=10**6)
    assert asked == [4, 8, 16, 32]
    assert fastest(tried) == 16
    tight = search(made_up(speeds, bytes_per_row=10), SIZES, start=4, free_bytes=100)
    assert fastest(tight) == 8


def test_a_start_that_does_not_fit_goes_down():
    tried = search(made_up({1: 10.0, 2: 20.0}), SIZES, start=16, free_bytes=10**6)
    assert fastest(tried) == 2
    assert search(made_up({}), SIZES, start=16, free_bytes=10**6) == []


def test_of_two_equal_speeds_the_smaller_size_counts():
    tried = search(made_up({8: 100.0, 16: 101.0}), SIZES, start=8, free_bytes=10**6)
    assert fastest(tried) == 8


@pytest.mark.parametrize("batch_size", [1, 8, 32, 256])
def test_a_division_keeps_the_global_batch_and_the_rows_of_validation(batch_size):
    config = divide(TrainingConfig(), batch_size)
    assert config.sequences_per_step == 1024
    assert config.batch_size == batch_size
    assert config.validation_batches * batch_size == 64 * 16


def test_a_real_search_leaves_weights_and_global_batch_alone(config, make_trainer):
    model = make_trainer(config).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = dataclasses.replace(config, use_micro_batch_search=True)
    found = with_fastest_micro_batch(model, config, CPU)
    assert found.sequences_per_step == config.sequences_per_step
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_size_out_of_memory_is_no_measurement(config, make_trainer, monkeypatch):
    model = make_trainer(config).model

    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Transformer, "hidden_states_and_routing", fail)
    assert measure_micro_batch(model, config, CPU) is None


@pytest.mark.parametrize(
    ("is_asked", "device", "max_steps", "is_wanted"),
    [
        (None, "cpu", 100_000, False),
        (None, "cuda", 999, False),
        (None, "cuda", 1_000, True),
        (False, "cuda", 100_000, False),
        (True, "cpu", 9, True),
    ],
)
def test_only_long_runs_on_a_gpu_search_by_themselves(
    config, is_asked, device, max_steps, is_wanted
):
    asked = dataclasses.replace(config, use_micro_batch_search=is_asked, max_steps=max_steps)
    runtime = dataclasses.replace(CPU, device=torch.device(device))
    assert wants_micro_batch_search(asked, runtime) is is_wanted


def test_several_processes_do_not_search(config):
    runtime = dataclasses.replace(CPU, device=torch.device("cuda"), num_processes=2)
    long = dataclasses.replace(config, max_steps=100_000)
    assert not wants_micro_batch_search(long, runtime)
    with pytest.raises(ValueError, match="True with 2 processes: .*set it to False"):
        wants_micro_batch_search(dataclasses.replace(long, use_micro_batch_search=True), runtime)
