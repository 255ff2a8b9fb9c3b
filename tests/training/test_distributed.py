"""Runs of several real processes, started by torchrun, against the run of one.

A start takes seconds, most of them to import torch: what can share one does.
"""

import dataclasses
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from dimgpt.config import TrainingConfig
from dimgpt.data.reading.batch import Batch
from dimgpt.runtime import choose_runtime
from dimgpt.training.checkpoint import CheckpointStore
from dimgpt.training.distributed import load_latest
from dimgpt.training.journal import read_history
from dimgpt.training.micro_batches import share_of, take_share
from dimgpt.training.run_folder import lock_run

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
Job = importlib.import_module("distributed_worker").Job
ALONE = choose_runtime("fp32", "cpu")
TORCHRUN = [
    *("-m", "torch.distributed.run", "--nproc-per-node=2", "--local-addr=127.0.0.1"),
    *("--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"),
]
PATHS = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent)])
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": PATHS}
TOY = TrainingConfig(
    batch_size=4,
    accumulation_steps=4,
    learning_rate=1e-2,
    min_learning_rate=1e-3,
    warmup_steps=2,
    decay_steps=8,
    max_steps=8,
    validation_interval=3,
    validation_batches=3,
    checkpoint_interval=4,
    sample_interval=4,
    precision="fp32",
)
UNEVEN = replace(TOY, batch_size=3, accumulation_steps=5)
PARTS = replace(TOY, sharding="full")
HALF = replace(TOY, max_steps=6)
MUON = replace(TOY, optimizer="muon")
EVERYTHING = {  # each part that the published model does not have
    "num_experts": 4,
    "use_shared_expert": True,
    "qk_norm": True,
    "attention_pattern": ("window", "full"),
    "logit_cap": 15.0,
    "use_stream_scalars": True,
    "use_value_embeddings": True,
}


def start(*jobs):
    """Let two processes take part in the jobs."""
    told = json.dumps([dataclasses.asdict(job) for job in jobs])
    return subprocess.Popen(
        [sys.executable, *TORCHRUN, str(HERE / "distributed_worker.py"), told],
        env=os.environ | LOOPBACK,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def job(folder, config, **options):
    return Job(folder=str(folder), config=dataclasses.asdict(config), **options)


def measured(folder, *, after=0):
    """Return what the steps and validations of a run measured."""
    names = ("step", "tokens", "loss", "accuracy", "grad_norm", "num_skipped")
    return [
        {name: record[name] for name in names if name in record}
        for record in read_history(folder / "history.jsonl")
        if record["kind"] in ("step", "validation") and record["step"] > after
    ]


def assert_same(folder, other, *, after=0):
    ours, theirs = measured(folder, after=after), measured(other, after=after)
    assert len(ours) == len(theirs)
    assert len(ours) >= TOY.max_steps - after
    for mine, its in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(its, abs=1e-6, rel=1e-6)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of runs: by one process, by two, and by first one and then the other."""
    root = tmp_path_factory.mktemp("runs")
    for name, config in (
        ("alone", TOY),
        ("alone-uneven", UNEVEN),
        ("alone-muon", MUON),
        ("one-then-two", HALF),
        ("one-then-parts", HALF),
    ):
        job(root / name, config).train(ALONE)
    job(root / "alone-everything", MUON, model=EVERYTHING).train(ALONE)
    gone_back = replace(PARTS, checkpoint_interval=3)
    endless = replace(TOY, max_steps=50_000, checkpoint_interval=50_000)
    killed = start(job(root / "killed", TOY, fault="kill", steps=(7,)))  # imports meanwhile
    with lock_run(root / "locked"):
        process = start(
            job(root / "two", TOY),
            job(root / "two-uneven", UNEVEN),
            job(root / "one-then-two", TOY),
            job(root / "two-then-one", HALF),
            job(root / "nan", TOY, fault="nan", steps=(5, 6)),
            job(
                root / "gone-back",
                replace(TOY, checkpoint_interval=3),
                fault="nan once",
                steps=(4, 5, 6, 7, 8),
            ),
            job(root / "parts", PARTS),
            job(root / "parts-uneven", replace(UNEVEN, sharding="full")),
            job(root / "parts-muon", replace(MUON, sharding="full", max_steps=6)),
            job(root / "parts-muon", replace(MUON, sharding="full")),
            job(root / "two-everything", MUON, model=EVERYTHING),
            job(
                root / "parts-everything",
                replace(MUON, sharding="full", max_steps=6),
                model=EVERYTHING,
            ),
            job(root / "parts-everything", replace(MUON, sharding="full"), model=EVERYTHING),
            job(root / "parts-then-whole", replace(HALF, sharding="full")),
            job(root / "parts-then-whole", TOY),
            job(root / "whole-then-parts", HALF),
            job(root / "whole-then-parts", PARTS),
            job(root / "parts-then-one", replace(HALF, sharding="full")),
            job(root / "one-then-parts", PARTS),
            job(root / "parts-gone-back", gone_back, fault="nan once", steps=(4, 5, 6, 7, 8)),
            job(root / "no-memory-at-first", TOY, fault="no memory", steps=(1,)),
            job(root / "no-memory-later", TOY, fault="no memory", steps=(5,)),
            job(root / "parts-no-space", PARTS, fault="no space", steps=(4,)),
            job(root / "parts-broken", PARTS, fault="value error", steps=(4,)),
            job(root / "locked", TOY),
            job(root / "signalled", endless, fault="sigterm", steps=(7,)),
            job(root / "terminated", endless, fault="slow"),
        )
        wait_for_step(root / "terminated", 3, process)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=120)[0]
    killed.communicate(timeout=60)
    assert process.returncode != 0
    assert killed.returncode != 0
    (root / "said.txt").write_text(said)
    for name in ("two-then-one", "parts-then-one"):
        job(root / name, TOY).train(ALONE)
    return root


def test_two_processes_train_as_one_does(runs):
    assert_same(runs / "two", runs / "alone")


@pytest.mark.parametrize("name", ["two-everything", "parts-everything"])
def test_a_model_with_experts_trains_as_in_one_process(runs, name):
    assert_same(runs / name, runs / "alone-everything")


def test_rows_that_cannot_be_halved_train_as_they_do_in_one_process(runs):
    assert_same(runs / "two-uneven", runs / "alone-uneven")


@pytest.mark.parametrize(
    ("name", "other"),
    [("parts", "alone"), ("parts-uneven", "alone-uneven"), ("parts-muon", "alone-muon")],
)
def test_a_model_in_parts_trains_as_a_whole_one_does(runs, name, other):
    assert_same(runs / name, runs / other)


@pytest.mark.parametrize("name", ["two", "parts"])
def test_samples_are_those_of_one_process_and_stand_once(runs, name):
    ours, theirs = (
        [
            record["text"]
            for record in read_history(runs / folder / "history.jsonl")
            if "text" in record
        ]
        for folder in (name, "alone")
    )
    assert ours == theirs
    assert len(ours) == 2


@pytest.mark.parametrize(
    "name",
    [
        "one-then-two",
        "two-then-one",
        "parts-then-whole",
        "whole-then-parts",
        "parts-then-one",
        "one-then-parts",
    ],
)
def test_a_run_goes_on_with_another_number_of_processes(runs, name):
    assert_same(runs / name, runs / "alone")


def test_what_is_not_finite_in_one_process_is_skipped_by_all(runs):
    steps = [record for record in measured(runs / "nan") if "grad_norm" in record]
    assert [record["step"] for record in steps if record["loss"] is None] == [5, 6]
    assert steps[-1]["num_skipped"] == 2


def test_a_signal_to_one_process_stops_all_after_the_same_step(runs):
    last = measured(runs / "signalled")[-1]["step"]
    assert last < 20
    assert (runs / "signalled" / "checkpoints" / f"step-{last:08d}").is_dir()


def test_sigterm_to_torchrun_saves_and_ends_all(runs):
    last = measured(runs / "terminated")[-1]["step"]
    assert last < 1_000
    assert (runs / "terminated" / "checkpoints" / f"step-{last:08d}").is_dir()


def test_a_killed_process_ends_all_and_the_next_start_goes_on(runs):
    job(runs / "killed", TOY).train(ALONE)
    steps = [record["step"] for record in read_history(runs / "killed" / "history.jsonl")]
    assert steps.count(0) == 1
    assert_same(runs / "killed", runs / "alone")


def test_a_launch_in_the_folder_of_a_running_one_is_refused_and_one_process_says_why(runs):
    said = (runs / "said.txt").read_text()
    assert said.count("another training is running in") == 1
    assert not (runs / "locked" / "history.jsonl").exists()


def test_all_go_back_to_the_checkpoint_together_and_one_says_so(runs):
    for name in ("gone-back", "parts-gone-back"):
        assert_same(runs / name, runs / "alone")
    assert (runs / "said.txt").read_text().count("back to the checkpoint of step 3") == 2


@pytest.mark.parametrize("name", ["no-memory-at-first", "no-memory-later"])
def test_memory_that_runs_out_in_one_process_changes_nothing_but_its_pieces(runs, name):
    assert_same(runs / name, runs / "alone")


def test_a_disk_that_is_full_for_one_process_leaves_the_checkpoint_out_for_all(runs):
    assert_same(runs / "parts-no-space", runs / "alone")
    folder = runs / "parts-no-space" / "checkpoints"
    assert [path.name for path in folder.glob("step-*")] == ["step-00000008"]
    assert "the checkpoint of step 4 could not be written" in (runs / "said.txt").read_text()


def test_an_error_in_one_process_that_writes_its_part_ends_all_within_seconds(runs):
    said = (runs / "said.txt").read_text()
    ended = re.findall(
        r"process (\d) after (\d+) s: (a fault of the program|another process)", said
    )
    assert sorted((rank, reason) for rank, _, reason in ended) == [
        ("0", "another process"),
        ("1", "a fault of the program"),
    ]
    assert all(int(seconds) < 30 for _, seconds, _ in ended)
    assert not [*(runs / "parts-broken" / "checkpoints").glob("step-*")]


def test_a_process_without_the_checkpoint_of_the_first_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(dist, "broadcast", lambda tensor, src: tensor.fill_(4))
    other = replace(ALONE, rank=1, num_processes=2)
    with pytest.raises(RuntimeError, match="on a disk that all machines share") as error:
        load_latest(CheckpointStore(tmp_path), other)
    assert "step-00000004" in str(error.value)
    assert "\n" not in str(error.value)


def wait_for_step(folder, step, process):
    history, deadline = folder / "history.jsonl", time.monotonic() + 60
    while not (history.exists() and any(r["step"] >= step for r in read_history(history))):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def batches_of(*sizes):
    rows = torch.arange(sum(sizes))[:, None].split(sizes)
    return [Batch(inputs=ids, targets=ids + 1, weights=ids + 1.0) for ids in rows]


@pytest.mark.parametrize("sizes", [(4, 4), (4, 4, 4), (3, 3, 3, 1), (5,), (1,)])
@pytest.mark.parametrize("num_processes", [1, 2, 3, 4])
def test_every_row_is_in_one_share_and_all_shares_have_the_same_shapes(sizes, num_processes):
    batches = batches_of(*sizes)
    shares = [
        share_of(batches, replace(ALONE, rank=rank, num_processes=num_processes))
        for rank in range(num_processes)
    ]
    assert len({tuple(batch.inputs.shape for batch in share) for share in shares}) == 1
    assert max(len(batch.inputs) for batch in shares[0]) <= max(sizes)
    rows = torch.cat([batch.weights for share in shares for batch in share]).flatten()
    assert rows[rows > 0].tolist() == [*range(1, sum(sizes) + 1)]


def test_every_process_knows_the_weight_and_the_tokens_of_the_whole_step():
    batches = batches_of(2, 2, 1)
    for rank in range(2):
        rows = take_share(batches, replace(ALONE, rank=rank, num_processes=2))
        assert rows.weight == 15.0
        assert rows.num_tokens == 5
