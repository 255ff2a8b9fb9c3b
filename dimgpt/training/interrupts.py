"""Turns interrupts into a flag, so that they never end a run in the middle of a step.

Ctrl-C, the stop button of a notebook and a scheduler's SIGTERM have the same effect: the trainer
finishes its step, or drops it before the update, then saves and returns. Several processes stop
after the same step.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist


class Interrupt:
    """Whether somebody asked the run to stop. Calling it says so."""

    def __init__(self, *, num_processes: int = 1) -> None:
        self.num_processes = num_processes
        self.received: int | None = None
        """Number of the last signal that came to this process."""
        self._agreed: int | None = None

    @property
    def signal(self) -> int | None:
        """The signal that stops the run: of several processes, one that all know of."""
        return self.received if self.num_processes == 1 else self._agreed

    def agree(self) -> None:
        """Let all processes know a signal; each must call this at the same place of its work."""
        if self.num_processes > 1 and self._agreed is None:
            # On the host: the device's queue is not waited for.
            highest = torch.tensor([self.received or 0])
            dist.all_reduce(highest, dist.ReduceOp.MAX)
            self._agreed = int(highest) or None

    def __call__(self) -> bool:
        """Say whether to stop."""
        return self.signal is not None


@contextlib.contextmanager
def catch_interrupts(*, num_processes: int = 1) -> Iterator[Interrupt]:
    """Yield a flag that SIGINT and SIGTERM set; the old handlers return at the end.

    A single process gets them back at the first signal, so that a second one ends it at once.
    Python cannot catch signals outside the main thread: there, the flag stays unset.
    """
    interrupt = Interrupt(num_processes=num_processes)
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            # `None` is a handler that was not set from Python, which cannot set it again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def remember(number: int, frame: FrameType | None) -> None:
        interrupt.received = number
        # A launcher passes on signals that the terminal has sent to its processes already.
        if num_processes == 1:
            restore()

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, remember)
    try:
        yield interrupt
    finally:
        restore()
