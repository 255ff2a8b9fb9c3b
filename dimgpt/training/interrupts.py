"""Turns interrupts into a flag, so that they never end a run in the middle of a step.

Ctrl-C, the stop button of a notebook and a scheduler's SIGTERM have the same effect: the trainer
finishes its step, or drops it before the update, then saves and returns.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Interrupt:
    """Whether somebody asked the run to stop. Calling it says so."""

    restores_handlers = True
    """Whether a second signal gets the old handler, which ends the process at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        """Number of the last signal."""

    @property
    def signal(self) -> int | None:
        """The signal that stops the run."""
        return self.received

    def agree(self) -> None:
        """Settle with the other processes, of which there are none; see `distributed.py`."""

    def __call__(self) -> bool:
        """Say whether to stop."""
        return self.signal is not None


@contextlib.contextmanager
def catch_interrupts(interrupt: Interrupt | None = None) -> Iterator[Interrupt]:
    """Yield a flag that SIGINT and SIGTERM set; the old handlers return at the end.

    Python cannot catch signals outside the main thread: there, the flag stays unset.
    """
    interrupt = interrupt or Interrupt()
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
        if interrupt.restores_handlers:
            restore()

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, remember)
    try:
        yield interrupt
    finally:
        restore()
