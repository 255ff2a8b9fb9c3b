"""A batch of training rows, and a thread that makes the next ones while a step runs.

`pretraining.py` and `finetuning.py` draw the rows.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")
_Queue = queue.SimpleQueue[tuple[T | None, BaseException | None]]
_POLL_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows to train on: the model predicts position t of `targets` from `inputs` up to t."""

    inputs: Tensor
    """Token ids, int64 (B, T)."""
    targets: Tensor
    """`inputs` shifted by one, int64 (B, T)."""
    weights: Tensor
    """Weight of each target in the loss, float32 (B, T); 0 ignores it."""

    def pin_memory(self) -> "Batch":
        """Copy into page-locked memory, from which copies to a GPU do not block; needs a GPU."""
        return Batch(
            inputs=self.inputs.pin_memory(),
            targets=self.targets.pin_memory(),
            weights=self.weights.pin_memory(),
        )

    def to(self, device: torch.device | str) -> "Batch":
        """Copy to a device; from pinned memory the copy does not block."""
        return Batch(
            inputs=self.inputs.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            weights=self.weights.to(device, non_blocking=True),
        )


def make_batches(
    rows: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], *, batch_size: int
) -> list[Batch]:
    """Cut rows into batches, in their order.

    Args:
        rows: Token ids, int64 (R, T + 1).
        weights: One weight per id as a target, float32 (R, T + 1); the first column is unused.
        batch_size: Rows of a batch; the last one may hold fewer.
    """
    ids, shifted = torch.from_numpy(rows), torch.from_numpy(weights)[:, 1:]
    cuts = [slice(first, first + batch_size) for first in range(0, len(rows), batch_size)]
    return [
        Batch(
            inputs=ids[cut, :-1].contiguous(),
            targets=ids[cut, 1:].contiguous(),
            weights=shifted[cut].contiguous(),
        )
        for cut in cuts
    ]


def prefetch(
    make: Callable[[int], T], start: int, stop: int, *, depth: int = 2
) -> Generator[T, None, None]:
    """Yield `make(start)` ... `make(stop - 1)`, made ahead by a thread.

    The thread ends after the last item. A consumer that stops early waits until the thread has
    ended. An error of `make` is raised here, instead of its item.

    Args:
        make: Makes an item from its number, in the thread; memory is pinned there too.
        start: First number.
        stop: Number after the last.
        depth: Items to keep ready.
    """
    # An interrupt can come anywhere. Inside a `Queue` it would leave a lock closed for ever.
    ready: _Queue[T] = queue.SimpleQueue()
    wanted: queue.SimpleQueue[None] = queue.SimpleQueue()
    is_stopped = threading.Event()

    # Not a daemon: a process that ends while such a thread is inside torch is aborted.
    work = (make, range(start, stop), ready, wanted, is_stopped)
    thread = threading.Thread(target=_fill, args=work, name="prefetch")
    try:
        for _ in range(depth):
            wanted.put(None)
        thread.start()
        for _ in range(start, stop):
            item, error = ready.get()
            if error is not None:
                raise error
            wanted.put(None)
            yield item  # type: ignore[misc]
    finally:
        is_stopped.set()
        wanted.put(None)
        if thread.ident is not None:
            thread.join()


def _is_wanted(wanted: "queue.SimpleQueue[None]", is_stopped: threading.Event) -> bool:
    """Wait until one more item is wanted; return False once nothing more is."""
    while not is_stopped.is_set() and threading.main_thread().is_alive():
        with contextlib.suppress(queue.Empty):
            wanted.get(timeout=_POLL_SECONDS)
            return not is_stopped.is_set()
    return False


def _fill(
    make: Callable[[int], T],
    numbers: range,
    ready: _Queue[T],
    wanted: "queue.SimpleQueue[None]",
    is_stopped: threading.Event,
) -> None:
    """Put each item, or the error instead of it, into a queue while items are wanted."""
    try:
        for number in numbers:
            if not _is_wanted(wanted, is_stopped):
                return
            ready.put((make(number), None))
    except BaseException as error:
        ready.put((None, error))
