"""Trains a toy model in processes that are killed, and prints what became of them as JSON.

Called by `test_training_runs.py` as `training_worker.py FOLDER`. torch is imported once here, and
every training is a fork that begins before anything was computed.
"""

import dataclasses
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
import torch._dynamo
import toy_training

from dimgpt.model.transformer import Transformer
from dimgpt.runtime import choose_runtime
from dimgpt.training import journal
from dimgpt.training.checkpoint import CheckpointStore
from dimgpt.training.journal import read_history
from dimgpt.training.trainer import Trainer, TrainingConfig

FOLDER = Path(sys.argv[1])
MODEL = dataclasses.replace(toy_training.MODEL, num_layers=1, dropout=0.1)
CONFIG = TrainingConfig(
    batch_size=4,
    accumulation_steps=2,
    learning_rate=1e-2,
    min_learning_rate=1e-3,
    warmup_steps=2,
    decay_steps=20,
    max_steps=20,
    validation_interval=5,
    validation_batches=1,
    checkpoint_interval=3,
    skip_spikes=True,
    precision="fp32",
)
ROWS_THAT_FIT, FULL_FROM = 2, 9


def build(folder, config=CONFIG, observers=()):
    """Return a trainer with dropout, two bad steps, and memory that runs out after a while."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = toy_training.ToyData(config, bad_steps=(5, 8))
    runtime = choose_runtime("fp32", "cpu")
    trainer = Trainer(
        Transformer(MODEL), data, config, run_dir=folder, runtime=runtime, observers=observers
    )
    loss_sums = trainer.stepper.loss_sums

    def sums(batch):
        is_full = len(batch.inputs) > ROWS_THAT_FIT and trainer.state.step >= FULL_FROM
        if trainer.model.training and is_full:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss_sums(batch)

    trainer.stepper.loss_sums = sums
    return trainer


def fork(work, *arguments, **keywords):
    """Run something in a process of its own, and return its id."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(*arguments, **keywords)
            status = 0
        except SystemExit as stop:
            status = stop.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return child


def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train(folder, **keywords):
    build(folder, **keywords).fit()


def finish(folder):
    assert wait(fork(train, folder)) == 0
    return outcome(folder)


def outcome(folder):
    """Return all that must not depend on how often a run was killed."""
    path = CheckpointStore(folder / "checkpoints")._paths("step")[-1]
    manifest = json.loads((path / "manifest.json").read_text())
    state = json.loads((path / "state.json").read_text())
    kinds = ("step", "validation")
    records = [
        {key: value for key, value in record.items() if key not in TIMES}
        for record in read_history(folder / "history.jsonl")
        if record["kind"] in kinds
    ]
    tensors = {name: hash for name, hash in manifest.items() if name != "state.json"}
    counters = {key: value for key, value in state.items() if key not in {*TIMES, "averages"}}
    best = sorted(path.name for path in (folder / "checkpoints").glob("best-*"))
    return tensors, counters, records, best


TIMES = ("seconds", "tokens_per_second", "mfu")


def kills(draw, expected):
    """Kill at random times until there were 40 kills; every run must end as the first one did."""
    began = time.monotonic()
    finish(FOLDER / "timed")
    longest, num_kills, runs = (time.monotonic() - began) / 2, 0, []
    while num_kills < 40:
        folder = FOLDER / f"killed-{len(runs)}"
        while True:
            child = fork(train, folder)
            time.sleep(draw.uniform(0.0, longest))
            os.kill(child, signal.SIGKILL)
            if wait(child) == 0:
                break
            num_kills += 1
        runs.append(outcome(folder) == expected)
    return {"kills": num_kills, "runs": len(runs), "exact": sum(runs)}


def operations(draw, expected):
    """Kill before the n-th file operation under checkpoints/, for every n of three saves."""
    base = FOLDER / "stopped-at-7"
    assert wait(fork(train, base, observers=[stop_at(7)])) == 0
    points, num_valid, exact = 0, 0, 0
    while True:
        folder = FOLDER / f"point-{points}"
        shutil.copytree(base, folder)
        if wait(fork(train_until_operation, folder, points)) == 0:
            break
        points += 1
        num_valid += CheckpointStore(folder / "checkpoints").load_latest().step >= 6
        if points % 5 == 0:
            exact += finish(folder) == expected
    return {"points": points, "valid": num_valid, "exact": exact, "finished": points // 5}


def stop_at(step):
    def observe(record):
        if record["kind"] == "step" and record["step"] == step:
            raise SystemExit(0)

    return observe


def train_until_operation(folder, number):
    seen = [0]
    watched = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}

    def hook(event, arguments):
        if event in watched and "checkpoints" in str(arguments[0]):
            if seen[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            seen[0] += 1

    trainer = build(folder, observers=[stop_at(13)])
    real_resume = trainer.folder.resume

    def resume(*arguments):
        result = real_resume(*arguments)
        sys.addaudithook(hook)
        return result

    trainer.folder.resume = resume
    trainer.fit()


def damage(draw, expected):
    """Spoil files of the newest checkpoint in 4 ways; the one before leads to the same end."""
    base = FOLDER / "stopped-at-19"
    assert wait(fork(train, base, observers=[stop_at(19)])) == 0
    newest = CheckpointStore(base / "checkpoints")._paths("step")[-1]
    places = itertools.product(sorted(newest.iterdir()), range(4))
    ways = list(itertools.islice(itertools.cycle(places), 60))
    exact = 0
    for number, (path, how) in enumerate(ways):
        folder = FOLDER / f"damaged-{number}"
        shutil.copytree(base, folder)
        file = folder / path.relative_to(base)
        content = bytearray(file.read_bytes())
        if how == 0:
            file.unlink()
        elif how == 1:
            file.write_bytes(content[: draw.randrange(len(content))])
        elif how == 2:
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            file.write_bytes(content)
        else:
            file.write_bytes(bytes(len(content)))
        exact += finish(folder) == expected
    return {"ways": len(ways), "exact": exact}


def terminate(draw, expected):
    """Send SIGTERM at random times; status, seconds, and the end of the run."""
    results = []
    for number in range(5):
        folder = FOLDER / f"stopped-{number}"
        # Otherwise a fast machine ends the run before the signal.
        child = fork(train, folder, observers=[lambda record: time.sleep(0.01)])
        history = folder / "history.jsonl"
        while not (history.is_file() and '"kind": "step"' in history.read_text()):
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.15))
        os.kill(child, signal.SIGTERM)
        began = time.monotonic()
        status = wait(child)
        seconds = time.monotonic() - began
        step = CheckpointStore(folder / "checkpoints").load_latest().step
        last = [r["step"] for r in read_history(history) if r["kind"] == "step"][-1]
        results.append([status, seconds < 5, step == last, finish(folder) == expected])
    return {"results": results}


def lock(draw, expected):
    """Train twice in one folder; then kill the first, which must block nobody."""
    results = []
    for number in range(3):
        folder = FOLDER / f"shared-{number}"
        child = fork(train, folder, observers=[lambda record: time.sleep(0.05)])
        while not (folder / "history.jsonl").is_file():
            time.sleep(0.002)
        refused = wait(fork(refuse, folder))
        os.kill(child, signal.SIGKILL)
        wait(child)
        results.append([refused, wait(fork(train, folder))])
    return {"results": results}


def refuse(folder):
    try:
        train(folder)
    except RuntimeError as error:
        is_said = str(error).startswith("another training is running") and "\n" not in str(error)
        raise SystemExit(7 if is_said else 1) from None


def full_disk(draw, expected):
    """Let the kernel refuse every file over a size for six steps, two of which save."""
    results = []
    for first in range(3, 13):
        folder = FOLDER / f"full-{first}"
        status = wait(fork(train, folder, observers=[limit_files(first)]))
        results.append([status, outcome(folder) == expected])
    return {"results": results}


def limit_files(first):
    def observe(record):
        if record["kind"] == "step" and record["step"] in (first, first + 6):
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            size = 2_000 if record["step"] == first else hard
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    return observe


# Two at a time, one for each core; the first takes as long as all the others.
EXPERIMENTS = [[kills], [operations, damage, terminate, lock, full_disk]]


def experiment(works, expected):
    """Do some experiments, one after the other, and leave what they found in files."""
    for work in works:
        found = json.dumps(work(random.Random(0), expected))
        (FOLDER / f"{work.__name__}.json").write_text(found)


if __name__ == "__main__":
    journal.peak_flops = lambda runtime: 1e12  # a tenth of a second for each fork
    os.fsync = lambda descriptor: None  # a killed process loses nothing that waits for the disk
    build(FOLDER / "warm")  # what is imported late is imported here, once
    expected = finish(FOLDER / "whole")
    children = [fork(experiment, works, expected) for works in EXPERIMENTS]
    assert [wait(child) for child in children] == [0, 0]
    print(json.dumps({path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}))
