"""Warns when a run stands still, because a disk hangs, or the driver, or another process."""

import logging
import statistics
import threading
import time
from collections import deque
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)
_TIMES_USUAL, _NUM_USUAL = 10, 50


class Watchdog:
    """An observer of a run whose thread warns when no step ends for ten times the usual time.

    The usual time is the median of the last 50 steps.

    Args:
        least_seconds: It never warns before a step has taken this long.
    """

    def __init__(self, *, least_seconds: float = 60.0) -> None:
        self.least_seconds = least_seconds
        self._seconds = deque[float](maxlen=_NUM_USUAL)
        self._usual = self._since = 0.0
        self._is_watching = False
        self._ended = threading.Event()

    def __call__(self, record: dict[str, Any]) -> None:
        """Restart the clock at each record of the run.

        The time between two successive steps counts for the usual time.
        """
        now, is_step = time.monotonic(), record["kind"] == "step"
        if is_step and self._is_watching:
            self._seconds.append(now - self._since)
            self._usual = statistics.median(self._seconds)
        self._since, self._is_watching = now, is_step

    def rest(self) -> None:
        """Stop watching until the next step ends, for example during a validation."""
        self._is_watching = False

    def __enter__(self) -> "Watchdog":
        self._ended.clear()
        self.rest()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()

    def _watch(self) -> None:
        warned = 0.0
        while not self._ended.wait(self.least_seconds / 4):
            since, usual = self._since, self._usual
            seconds = time.monotonic() - since
            is_late = seconds > max(self.least_seconds, _TIMES_USUAL * usual)
            if self._is_watching and usual and is_late and warned != since:
                warned = since
                log.warning(
                    "no step has ended for %.0f seconds, and a step usually takes %.3g: look at "
                    "the disk, at other programs and at nvidia-smi; Ctrl-C saves and stops",
                    seconds,
                    usual,
                )
