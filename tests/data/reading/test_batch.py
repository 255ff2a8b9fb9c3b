import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from dimgpt.data.reading.batch import make_batches, prefetch

SCRIPT = """
import contextlib, os, random, signal, threading, time
import torch
from dimgpt.data.reading.batch import prefetch

torch.set_num_threads(1)

def make(number):
    for _ in range(20 * number):
        torch.ones(1_000_000).sqrt()

def end_while_a_batch_is_made(how):
    items = prefetch(make, 0, 9)
    next(items)
    exec(how)
    return items

def interrupt():
    draw = random.Random(0).random
    while True:
        time.sleep(1e-3 * draw())
        os.kill(os.getpid(), signal.SIGINT)

def once(number, frame):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt

def be_interrupted_anywhere():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=interrupt, daemon=True).start()
    for _ in range(3_000):
        with contextlib.suppress(KeyboardInterrupt):
            signal.signal(signal.SIGINT, once)
            with contextlib.closing(prefetch(lambda number: number, 0, 10**9)) as items:
                for _ in items:
                    pass
    os._exit(0)

# Importing torch takes seconds: once, for four processes.
for how in ("items.close()", "", "raise SystemExit(0)", "interrupted"):
    child = os.fork()
    if not child:
        is_interrupted = how == "interrupted"
        items = be_interrupted_anywhere() if is_interrupted else end_while_a_batch_is_made(how)
        break
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(f"{how}: {code}", flush=True)
"""


@pytest.fixture(scope="module")
def ends():
    """How each process of the script ended."""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (run.returncode, run.stderr) == (0, b"")
    return run.stdout.decode().splitlines()


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_targets_and_weights_are_shifted_by_one():
    rows = np.arange(15).reshape(3, 5)
    weights = rows.astype(np.float32)
    first, second = make_batches(rows, weights, batch_size=2)
    assert first.inputs.tolist() == [[0, 1, 2, 3], [5, 6, 7, 8]]
    assert first.targets.tolist() == [[1, 2, 3, 4], [6, 7, 8, 9]]
    assert first.weights.tolist() == first.targets.tolist()
    assert second.inputs.tolist() == [[10, 11, 12, 13]]
    assert first.targets.is_contiguous()


def test_items_come_in_order():
    assert list(prefetch(lambda i: i * i, 3, 8)) == [9, 16, 25, 36, 49]
    assert list(prefetch(lambda i: i, 3, 3)) == []


@pytest.mark.slow
def test_items_are_made_ahead_but_no_further_than_asked():
    made = []
    items = prefetch(lambda i: made.append(i), 0, 100, depth=2)
    next(items)
    time.sleep(0.2)
    assert 2 <= len(made) <= 4
    items.close()


def test_an_exception_is_raised_at_its_place():
    def make(number):
        if number == 2:
            raise ValueError("step 2 has no data")
        return number

    items = prefetch(make, 0, 5)
    assert [next(items), next(items)] == [0, 1]
    with pytest.raises(ValueError, match="step 2 has no data"):
        next(items)
    assert not prefetch_threads()


def test_the_thread_ends_when_the_consumer_stops_early():
    items = prefetch(lambda i: i, 0, 1_000_000)
    next(items)
    assert prefetch_threads()
    items.close()
    assert not prefetch_threads()


@pytest.mark.slow
def test_a_process_may_end_while_an_item_is_made(ends):
    """The interpreter ends such a thread by an exception, which inside of torch is an abort."""
    assert ends[:3] == ["items.close(): 0", ": 0", "raise SystemExit(0): 0"]


@pytest.mark.slow
def test_an_interrupt_at_any_place_leaves_nothing_that_waits_for_ever(ends):
    assert ends[3:] == ["interrupted: 0"]
