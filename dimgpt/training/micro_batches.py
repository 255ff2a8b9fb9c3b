"""The rows of an optimizer step: the share of one process, and their split into micro-batches.

The rows of a step, and so its gradient, are the same however they are divided. Every process makes
all rows and takes its share: the prefetch thread makes half a million tokens in 12 ms, less than
the device needs for any share.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch

from dimgpt.data.reading.batch import Batch
from dimgpt.runtime import Runtime


class TrainingData(Protocol):
    """The batches of a run. Both methods are pure, so a resumed run sees the same batches."""

    def batches(self, step: int) -> list[Batch]:
        """Return the micro-batches of an optimizer step."""
        ...

    def validation_batches(self, num_batches: int) -> Iterable[Batch]:
        """Return held-out batches, the same ones each time."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRows:
    """The rows that one process computes in a step, and two sums over all processes."""

    batches: Sequence[Batch]
    """The share of this process, in micro-batches."""
    weight: float
    """Sum of the loss weights over the rows of all processes."""
    num_tokens: int
    """Tokens in the rows of all processes."""


def take_share(batches: Sequence[Batch], runtime: Runtime) -> StepRows:
    """Return this process's share of a step's micro-batches, in pinned memory for a GPU."""
    share = share_of(batches, runtime)
    if runtime.device.type == "cuda":
        share = [batch.pin_memory() for batch in share]
    return StepRows(
        batches=share,
        weight=max(sum(float(batch.weights.sum()) for batch in batches), 1e-8),
        num_tokens=sum(batch.inputs.numel() for batch in batches),
    )


def share_of(batches: Sequence[Batch], runtime: Runtime) -> list[Batch]:
    """Divide micro-batches into equal shares and return the one of this process.

    Each row is in one share. Whole micro-batches are dealt out if their number is a multiple of the
    number of processes; otherwise rows are, in micro-batches that are no larger. All shares have
    the same shapes: rows of weight 0 fill the last ones.
    """
    rank, num_processes = runtime.rank, runtime.num_processes
    sizes = [len(batch.inputs) for batch in batches]
    num_each, rest = divmod(len(batches), num_processes)
    if rest == 0 and len(set(sizes)) <= 1:
        return list(batches[rank * num_each : (rank + 1) * num_each])
    num_rows = math.ceil(sum(sizes) / num_processes)
    rows = torch.arange(rank * num_rows, (rank + 1) * num_rows)
    share = join(batches).rows(rows.clamp(max=sum(sizes) - 1))
    share.weights[rows >= sum(sizes)] = 0.0
    num_batches = math.ceil(num_rows / max(sizes))
    return [share.rows(chosen) for chosen in torch.arange(num_rows).tensor_split(num_batches)]


def join(batches: Sequence[Batch]) -> Batch:
    """Return the rows of several batches as one."""
    names = [field.name for field in fields(Batch) if getattr(batches[0], field.name) is not None]
    return Batch(**{name: torch.cat([getattr(one, name) for one in batches]) for name in names})


def cut(batches: Sequence[Batch], num_rows: int | None) -> list[Batch]:
    """Split the batches into pieces of at most `num_rows`; `None` leaves them unchanged."""
    if num_rows is None:
        return list(batches)
    return [
        batch.rows(slice(first, first + num_rows))
        for batch in batches
        for first in range(0, len(batch.inputs), num_rows)
    ]


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory has run out."""
    # The CPU's allocator raises a plain RuntimeError.
    is_cpu = "DefaultCPUAllocator" in str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or is_cpu
