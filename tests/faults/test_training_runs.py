"""Runs that are killed, stopped, starved and doubled, in real processes.

Every toy run has dropout, accumulation, skipped steps, and memory that runs out on the way; "exact"
means the same weights, moments, counters, best checkpoint and history, bit for bit.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("training_worker.py")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    paths = os.pathsep.join(str(WORKER.parents[number]) for number in (1, 2))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, str(WORKER), str(tmp_path_factory.mktemp("faults"))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"errors": done.stderr}


def test_a_run_killed_at_random_times_ends_as_if_it_never_was(found, fault):
    assert found["kills"]["kills"] >= 40
    assert found["kills"]["runs"] == found["kills"]["exact"] > 0
    fault(9, found["kills"]["kills"])


def test_a_kill_before_any_file_operation_of_a_save_leaves_a_whole_checkpoint(found, fault):
    operations = found["operations"]
    assert operations["points"] > 40
    assert operations["valid"] == operations["points"]
    assert operations["exact"] == operations["finished"]
    fault(10, operations["points"])


def test_a_damaged_newest_checkpoint_costs_steps_but_no_bit(found, fault):
    damage = found["damage"]
    assert damage["exact"] == damage["ways"]
    fault(11, damage["ways"])


def test_sigterm_saves_within_seconds_and_loses_no_step(found, fault):
    assert found["terminate"] == {"results": [[143, True, True, True]] * 5}
    fault(13, 5)


def test_a_second_trainer_is_refused_and_a_dead_one_blocks_nobody(found, fault):
    assert found["lock"] == {"results": [[7, 0]] * 3}
    fault(15, 3)


def test_a_full_disk_stops_no_training_and_spoils_no_file(found, fault):
    assert found["full_disk"] == {"results": [[0, True]] * 10}
    assert "could not be written" in found["errors"]
    assert "its records stay in memory" in found["errors"]
    fault(12, 10)
