"""Interrupts as a flag, so that a step is never cut in two.

Ctrl-C, the stop button of a notebook and a scheduler's SIGTERM all end in the same way: the trainer
ends its step, or drops it before the update, saves, and returns. A second one does at once what it
did before, unless a launcher may have passed on what the terminal has sent already.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass(slots=True)
class Interrupt:
    """Whether someone asked to stop, and how."""

    signal: int | None = None


@contextlib.contextmanager
def catch_interrupts(*, again: bool = True) -> Iterator[Interrupt]:
    """Yield a flag that SIGINT and SIGTERM set; afterwards the old handlers are back.

    Outside the main thread Python cannot catch signals: the flag stays unset.

    Args:
        again: Let a second signal do what it did before.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            # `None` is a handler that was not set from Python, which cannot set it again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def remember(number: int, frame: FrameType | None) -> None:
        interrupt.signal = number
        if again:
            restore()

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, remember)
    try:
        yield interrupt
    finally:
        restore()
