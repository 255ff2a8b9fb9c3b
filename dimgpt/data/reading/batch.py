"""Batches of training rows, and a thread that makes the next ones while a step runs.

`pretraining.py` and `finetuning.py` draw the rows. Every step is a pure function of (seed, step):
nothing is remembered between steps, and the rows do not depend on their division into batches.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
DrawRows = Callable[[np.random.Generator, int, int], tuple[Array, ...]]
"""Draws R rows of T tokens: ids, int64, and loss weights, float32, both (R, T). If attention stays
inside documents, also the lengths of the documents in the first T - 1 tokens, int64 (R, D)."""
T = TypeVar("T")
_Queue = queue.SimpleQueue[tuple[T | None, BaseException | None]]
_POLL_SECONDS = 0.1
# Streams of random numbers under one seed.
_TRAIN, _VALIDATION = 0, 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows to train on: the model predicts position t of `targets` from `inputs` up to t."""

    inputs: Tensor
    """Token ids, int64 (B, T)."""
    targets: Tensor
    """`inputs` shifted by one, int64 (B, T)."""
    weights: Tensor
    """Weight of each target in the loss, float32 (B, T); 0 ignores it."""
    documents: Tensor | None = None
    """Lengths of the documents in each row of inputs, int64 (B, D), with sum T; attention stays
    inside documents. `None` if it crosses their borders."""
    reference: Tensor | None = None
    """Only for pairs of answers, whose rows have the shape (B, 2, T), the better one first: their
    log-probabilities under the model that the run began with, float32 (B, 2)."""

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Apply a function to each tensor."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {name: change(value) for name, value in tensors.items() if value is not None}
        return Batch(**changed)

    def rows(self, chosen: slice | Tensor) -> "Batch":
        """Return a batch of the chosen rows."""
        return self.map(lambda tensor: tensor[chosen])

    def pin_memory(self) -> "Batch":
        """Copy to page-locked memory, from which copies to a GPU do not block; requires a GPU."""
        return self.map(Tensor.pin_memory)

    def to(self, device: torch.device | str) -> "Batch":
        """Copy to a device; from pinned memory the copy does not block."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))


def make_batches(
    rows: Array, weights: Array, documents: Array | None = None, *, batch_size: int
) -> list[Batch]:
    """Split rows into batches, in their order.

    Args:
        rows: Token ids, int64 (R, T + 1), or (R, 2, T + 1) for pairs.
        weights: Loss weight of each id as a target, float32, same shape; the first column is
            unused.
        documents: As in `Batch`, (R, D).
        batch_size: Rows per batch; the last one may have fewer.
    """
    ids, weights_of_ids = torch.from_numpy(rows), torch.from_numpy(weights)
    whole = Batch(
        inputs=ids[..., :-1],
        targets=ids[..., 1:],
        weights=weights_of_ids[..., 1:],
        documents=None if documents is None else torch.from_numpy(documents),
    )
    whole = whole.map(Tensor.contiguous)
    return [whole.rows(slice(at, at + batch_size)) for at in range(0, len(rows), batch_size)]


class DrawnBatches:
    """The batches of any step, and those of the validation split."""

    def __init__(
        self,
        draw_train: DrawRows,
        draw_validation: DrawRows,
        *,
        context_length: int,
        batch_size: int,
        accumulation_steps: int,
        seed: int,
    ) -> None:
        """Draw rows of `context_length + 1` tokens: inputs, and targets shifted by one."""
        self._draw_train, self._draw_validation = draw_train, draw_validation
        self._row_length = context_length + 1
        self._batch_size, self._accumulation_steps = batch_size, accumulation_steps
        self._seed = seed

    def batches(self, step: int) -> list[Batch]:
        """Return the `accumulation_steps` batches of an optimizer step."""
        return self._draw(self._draw_train, self._generator(step), self._accumulation_steps)

    def validation_batches(self, num_batches: int) -> list[Batch]:
        """Return batches of the validation split, the same ones each time."""
        generator = np.random.default_rng((self._seed, _VALIDATION))
        return self._draw(self._draw_validation, generator, num_batches)

    def _generator(self, step: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, _TRAIN, step))

    def _draw(
        self, draw: DrawRows, generator: np.random.Generator, num_batches: int
    ) -> list[Batch]:
        drawn = draw(generator, self._batch_size * num_batches, self._row_length)
        return make_batches(*drawn, batch_size=self._batch_size)


def prefetch(
    make: Callable[[int], T], start: int, stop: int, *, depth: int = 2
) -> Generator[T, None, None]:
    """Yield `make(start)` ... `make(stop - 1)`; a thread keeps `depth` of them ready.

    `make` runs in that thread, so it pins memory there. The thread ends after the last item. A
    consumer that stops early waits until the thread has ended. An error of `make` is raised here,
    instead of its item.
    """
    # Not a `Queue`: an interrupt inside it would leave its lock locked for ever.
    ready: _Queue[T] = queue.SimpleQueue()
    wanted: queue.SimpleQueue[None] = queue.SimpleQueue()
    is_stopped = threading.Event()

    # Not a daemon: the process is aborted if it ends while a daemon thread is inside torch.
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
        if thread.is_alive():
            thread.join()


def _is_wanted(wanted: "queue.SimpleQueue[None]", is_stopped: threading.Event) -> bool:
    """Wait until one more item is wanted; return false when no more are."""
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
