import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dimgpt import workers
from dimgpt.workers import map_in_order

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def few_values(monkeypatch):
    monkeypatch.setattr(workers, "MAX_VALUES_WITHOUT_PROCESSES", 2)


@pytest.mark.slow
def test_results_come_in_order_whoever_computes_them():
    values = [(str(number), number) for number in range(40)]
    expected = [(key, hex(value)) for key, value in values]
    for num_workers in (1, 2):
        assert list(map_in_order(hex, values, num_workers=num_workers)) == expected


@pytest.mark.slow
def test_few_values_wait_at_a_time():
    taken = []

    def values():
        for number in range(100):
            taken.append(number)
            yield number, number

    results = map_in_order(hex, values(), num_workers=2)
    next(results)
    assert len(taken) < 12
    results.close()


def test_few_values_start_no_process(monkeypatch):
    monkeypatch.setattr(workers, "ProcessPoolExecutor", None)
    assert list(map_in_order(hex, [(0, 1), (0, 2)], num_workers=2)) == [(0, "0x1"), (0, "0x2")]


@pytest.mark.slow
def test_an_error_in_a_process_is_raised_here():
    with pytest.raises(ValueError, match="invalid literal"):
        list(map_in_order(int, [(0, "x")] * 9, num_workers=2))


SCRIPT = """
import multiprocessing, time
from dimgpt import workers

if __name__ == "__main__":
    values = ((0, 0.05) for _ in range(10**6))
    for _ in workers.map_in_order(time.sleep, values, num_workers=2):
        print(*[process.pid for process in multiprocessing.active_children()], flush=True)
"""


def is_alive(pid):
    """Tell whether a process runs; one that ended and waits to be buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes in /proc")
def test_the_processes_of_a_killed_run_end_with_it(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as run:
        pids = run.stdout.readline().split()
        run.kill()
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))
