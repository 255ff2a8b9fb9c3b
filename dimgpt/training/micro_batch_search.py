"""Finds the fastest number of sequences per micro-batch, at a fixed global batch.

The sequences of a step and their rows stay the same; only their division into micro-batches
changes, and with it the order of the sums. A search compiles the model for each size that it tries,
so it pays off in runs of hours.
"""

import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dimgpt.config import TrainingConfig
from dimgpt.data.reading.batch import Batch
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime, available_memory
from dimgpt.training.loss import compiled_loss

logger = logging.getLogger(__name__)
_MAX_TOKENS = 2**17
_MIN_GAIN = 1.02
_MEMORY_RATIO = 0.9
_LONG_RUN_STEPS = 1_000
_BYTES_PER_WEIGHT = 4 + 4 + 4  # the gradient and AdamW's two moments


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Speed and memory of micro-batches of one size."""

    batch_size: int
    """Sequences per micro-batch."""
    tokens_per_second: float
    """Of forward and backward together."""
    peak_bytes: int
    """Memory taken besides the weights; 0 where the device does not count it."""


def wants_micro_batch_search(config: TrainingConfig, runtime: Runtime) -> bool:
    """Return whether a run begins with the search: by default, long runs on CUDA do.

    Raises:
        ValueError: The config asks for it with several processes; each would find another size.
    """
    are_several = runtime.num_processes > 1
    if config.use_micro_batch_search is None:
        is_long = config.max_steps >= _LONG_RUN_STEPS
        return is_long and runtime.device.type == "cuda" and not are_several
    if config.use_micro_batch_search and are_several:
        raise ValueError(
            f"use_micro_batch_search is True with {runtime.num_processes} processes: it works with "
            "one only; set it to False and choose batch_size"
        )
    return config.use_micro_batch_search


def with_fastest_micro_batch(
    model: Transformer, config: TrainingConfig, runtime: Runtime
) -> TrainingConfig:
    """Return the config with the fastest division of its global batch; the model is not changed."""
    tried = measure_sizes(model, config, runtime)
    for one in tried:
        logger.info("micro-batch of %d: %.0f tokens/s", one.batch_size, one.tokens_per_second)
    return divide(config, fastest(tried)) if tried else config


def measure_sizes(
    model: Transformer, config: TrainingConfig, runtime: Runtime
) -> list[Measurement]:
    """Measure the divisions of the global batch that `search` tries; the model is not changed."""
    model.to(runtime.device)
    free_bytes = available_memory(runtime) - _BYTES_PER_WEIGHT * model.num_trained_parameters
    sizes = candidate_sizes(config.sequences_per_step, context_length=model.config.context_length)

    def measure(batch_size: int) -> Measurement | None:
        return measure_micro_batch(model, divide(config, batch_size), runtime)

    return search(measure, sizes, start=config.batch_size, free_bytes=free_bytes)


def divide(config: TrainingConfig, batch_size: int) -> TrainingConfig:
    """Return the config with micro-batches of another size, and the same global batch and rows."""
    rows = config.validation_batches * config.batch_size
    return dataclasses.replace(
        config,
        batch_size=batch_size,
        accumulation_steps=config.sequences_per_step // batch_size,
        validation_batches=max(rows // batch_size, 1),
    )


def candidate_sizes(sequences_per_step: int, *, context_length: int) -> list[int]:
    """Return divisors of the global batch, each about twice the one before."""
    largest = max(_MAX_TOKENS // context_length, 1)
    sizes = [1]
    for size in range(2, min(sequences_per_step, largest) + 1):
        if sequences_per_step % size == 0 and size >= 2 * sizes[-1]:
            sizes.append(size)
    return sizes


def search(
    measure: Callable[[int], Measurement | None],
    sizes: Sequence[int],
    *,
    start: int,
    free_bytes: int,
) -> list[Measurement]:
    """Measure sizes from `start` upwards while they fit and get faster; downwards if none fits.

    Args:
        measure: Returns `None` for a size that does not fit in memory.
        sizes: Ascending.
        start: The search begins at the largest size not above it.
        free_bytes: Memory that a micro-batch may take; a tenth is left as a reserve.

    Returns:
        The measurements of the sizes that fit, in the order tried.
    """

    def measure_if_fits(size: int) -> Measurement | None:
        one = measure(size)
        return one if one is not None and one.peak_bytes <= _MEMORY_RATIO * free_bytes else None

    first = max((i for i, size in enumerate(sizes) if size <= start), default=0)
    tried: list[Measurement] = []
    for size in sizes[first:]:
        one = measure_if_fits(size)
        if one is None:
            break
        tried.append(one)
        if len(tried) > 1 and one.tokens_per_second < _MIN_GAIN * tried[-2].tokens_per_second:
            break
    if not tried:
        smaller = (measure_if_fits(size) for size in reversed(sizes[:first]))
        tried = [*itertools.islice(filter(None, smaller), 1)]
    return tried


def fastest(tried: Sequence[Measurement]) -> int:
    """Return the fastest size; of sizes within 2 % of the best, the smallest."""
    best = max(one.tokens_per_second for one in tried)
    return min(one.batch_size for one in tried if one.tokens_per_second * _MIN_GAIN >= best)


def measure_micro_batch(
    model: Transformer, config: TrainingConfig, runtime: Runtime, *, repeats: int = 3
) -> Measurement | None:
    """Time forward and backward of one micro-batch of random ids; `None` if memory runs out.

    The weights do not change; the gradients are dropped.
    """
    torch.compiler.reset()
    try:
        # A separate function, so that its tensors are freed before the cache is emptied.
        return _time_micro_batch(model, config, runtime, repeats=repeats)
    except torch.OutOfMemoryError:
        return None
    finally:
        model.zero_grad(set_to_none=True)
        if runtime.device.type == "cuda":
            torch.cuda.empty_cache()


def _time_micro_batch(
    model: Transformer, config: TrainingConfig, runtime: Runtime, *, repeats: int
) -> Measurement:
    shape = (config.batch_size, model.config.context_length)
    ids = torch.randint(model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    batch = Batch(inputs=ids, targets=ids, weights=torch.ones(shape)).to(runtime.device)
    is_cuda = runtime.device.type == "cuda"
    before = torch.cuda.memory_allocated(runtime.device) if is_cuda else 0
    compute, seconds = compiled_loss(model, config, runtime), []
    model.train()
    for _ in range(1 + repeats):  # the first one compiles
        if is_cuda:
            torch.cuda.reset_peak_memory_stats(runtime.device)
        started = time.perf_counter()
        with runtime.autocast():
            loss = compute(batch).loss
        (loss / ids.numel()).backward()
        if is_cuda:
            torch.cuda.synchronize(runtime.device)
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated(runtime.device) - before if is_cuda else 0
    return Measurement(
        batch_size=config.batch_size,
        tokens_per_second=ids.numel() / min(seconds[1:]),
        peak_bytes=peak,
    )
