"""Turns interrupts into a flag, so that they never end a run in the middle of a step.

Ctrl-C, the stop button of a notebook and a scheduler's SIGTERM have the same effect: the trainer
finishes its step, or drops it before the update, then saves and returns. Several processes stop
after the same step.
"""

import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist

P = ParamSpec("P")
T = TypeVar("T")


class Interrupt:
    """A flag: calling it returns whether the run was asked to stop."""

    def __init__(self, *, num_processes: int = 1) -> None:
        self.num_processes = num_processes
        self.received: int | None = None
        """Number of the last signal that this process received."""
        self._agreed: int | None = None

    @property
    def signal(self) -> int | None:
        """The signal that stops the run; with several processes, the one that `agree` shared."""
        return self.received if self.num_processes == 1 else self._agreed

    def agree(self) -> None:
        """Share received signals; all processes must call this at the same place of their work."""
        if self.num_processes > 1 and self._agreed is None:
            # A CPU tensor, so that the exchange does not wait for the device's queue.
            highest = torch.tensor([self.received or 0])
            dist.all_reduce(highest, dist.ReduceOp.MAX)
            self._agreed = int(highest) or None

    def __call__(self) -> bool:
        """Say whether to stop."""
        return self.signal is not None


@contextlib.contextmanager
def catch_interrupts(*, num_processes: int = 1) -> Iterator[Interrupt]:
    """Yield a flag that SIGINT and SIGTERM set; restore the old handlers at the end.

    A single process restores them at the first signal, so that a second one ends it at once. Python
    cannot catch signals outside the main thread: there, the flag stays unset.
    """
    interrupt = Interrupt(num_processes=num_processes)
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            # `None` stands for a handler set outside Python, which Python cannot set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def remember(number: int, frame: FrameType | None) -> None:
        interrupt.received = number
        # Torchrun forwards signals that the terminal has already sent to each process.
        if num_processes == 1:
            restore()

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, remember)
    try:
        yield interrupt
    finally:
        restore()


def frees_memory(train: Callable[P, T]) -> Callable[P, T]:
    """Raise `KeyboardInterrupt` and `torch.OutOfMemoryError` without the frames that hold tensors.

    A notebook keeps the traceback of the last error. Its frames would keep the model on the device
    while the cell runs again with a new one.
    """

    @functools.wraps(train)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return train(*args, **kwargs)
        except (KeyboardInterrupt, torch.OutOfMemoryError) as error:
            bare = type(error)(*error.args)
        del args, kwargs
        raise bare

    return wrapper
