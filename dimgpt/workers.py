"""Applies a function to many values in several processes; results come in the order of the values.

Only a few values are queued at a time. The work is Python code, so it runs in processes, not
threads. They are spawned, because a process forked beside torch's threads may hang. They end with
the process that started them, even if that is killed.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Any, TypeVar

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R")

# For so few values, starting processes takes longer than the work.
MAX_VALUES_WITHOUT_PROCESSES = 8
_WAITING_PER_WORKER = 3


def map_in_order(
    work: Callable[[T], R], values: Iterable[tuple[K, T]], *, num_workers: int | None
) -> Generator[tuple[K, R], None, None]:
    """Yield `(key, work(value))` for each `(key, value)`, in their order.

    Args:
        work: A pure function; it and its results must be picklable.
        values: Read by this process as they are needed; keys stay here.
        num_workers: Processes; `None` uses one per core. A few values are processed without
            workers.

    Raises:
        RuntimeError: A process died.
    """
    values = iter(values)
    first_values = list(islice(values, MAX_VALUES_WITHOUT_PROCESSES + 1))
    values = chain(first_values, values)
    num_workers = num_workers or num_cores()
    if num_workers == 1 or len(first_values) <= MAX_VALUES_WITHOUT_PROCESSES:
        yield from ((key, work(value)) for key, value in values)
        return
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(num_workers, context, initializer=_begin, initargs=(work,))
    waiting: deque[tuple[K, Future[R]]] = deque()
    try:
        for key, value in values:
            waiting.append((key, executor.submit(_work, value)))
            if len(waiting) == _WAITING_PER_WORKER * num_workers:
                first_key, future = waiting.popleft()
                yield first_key, future.result()
        yield from ((key, future.result()) for key, future in waiting)
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a process that encodes died: out of memory, killed, or started from a script without "
            '`if __name__ == "__main__":`; run again to go on, with num_workers=1 if it persists'
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def num_cores() -> int:
    """Return the number of cores that this process may use, which a container can limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_works: list[Callable[[Any], Any]] = []
"""The function that this worker runs. Sent once, because it may contain a vocabulary."""


def _begin(work: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent handles it
    _works.append(work)
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()


def _work(value: Any) -> Any:
    return _works[-1](value)


def _end_with_parent() -> None:
    """Exit when the parent ends: the worker of a killed parent would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
