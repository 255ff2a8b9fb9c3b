"""One of the processes that torchrun starts: it takes part in toy runs, one after the other.

Usage: distributed_worker.py JOBS, JSON with a list of `Job`.
"""

import contextlib
import errno
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch
from toy_training import MODEL, ToyData

from dimgpt.config import TrainingConfig
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import join_processes
from dimgpt.settings import merge
from dimgpt.training import sharding
from dimgpt.training.trainer import Trainer


@dataclass(kw_only=True)
class Job:
    """A run, and what happens to process `rank` when it makes the rows of `steps`."""

    folder: str
    config: dict
    model: dict = field(default_factory=dict)
    fault: str | None = None
    rank: int = 1
    steps: tuple = ()

    def train(self, runtime):
        config = TrainingConfig(**self.config)
        torch.manual_seed(0)
        model = Transformer(merge(MODEL, self.model))
        trainer = Trainer(
            model,
            FaultyData(config, self, runtime.rank),
            config,
            run_dir=Path(self.folder),
            runtime=runtime,
            sample=lambda: write(model),
        )
        with self.machine_faults(trainer, is_here=runtime.rank == self.rank):
            trainer.fit()

    def machine_faults(self, trainer, *, is_here):
        """Let memory run out above 2 rows from the first of `steps` on, or a write fail there."""
        errors = {
            "no space": OSError(errno.ENOSPC, "No space left on device"),
            "value error": ValueError("a fault of the program"),
        }
        real_sums, real_write = trainer.stepper.loss_sums, sharding.write_tensors

        def loss_sums(batch):
            if len(batch.inputs) > 2 and trainer.state.step + 1 >= self.steps[0]:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real_sums(batch)

        def write_tensors(path, *arguments, **options):
            if path.parent.name == f"step-{self.steps[0]:08d}.dimgpt-new":
                raise errors[self.fault]
            return real_write(path, *arguments, **options)

        if is_here and self.fault == "no memory":
            trainer.stepper.loss_sums = loss_sums
        if is_here and self.fault in errors:
            return mock.patch.object(sharding, "write_tensors", write_tensors)
        return contextlib.nullcontext()


@torch.inference_mode()
def write(model):
    """Return the 5 tokens that the model finds most probable after a beginning, one by one."""
    ids, cache = torch.tensor([[3, 4]]), model.new_cache(1)
    written = []
    for _ in range(5):
        ids = model(ids, cache)[:, -1:].argmax(dim=-1)
        written.append(str(int(ids)))
    return " ".join(written)


class FaultyData(ToyData):
    def __init__(self, config, job, rank):
        super().__init__(config)
        self.fault = job.fault if job.rank == rank else None
        self.steps = list(job.steps)

    def batches(self, step):
        is_now = step in self.steps
        if is_now and self.fault == "kill":
            time.sleep(0.5)  # until the steps before have been taken
            os.kill(os.getpid(), signal.SIGKILL)
        if is_now and self.fault == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
        if is_now and self.fault == "nan once":
            self.steps.remove(step)
        if self.fault == "slow":
            time.sleep(0.02)
        self.bad_steps = [step] if is_now and self.fault in ("nan", "nan once") else []
        return super().batches(step)


def main():
    torch.set_num_threads(1)
    with join_processes("fp32", "cpu") as runtime:
        jobs = [Job(**job) for job in json.loads(sys.argv[1])]
        for job in jobs:
            began = time.monotonic()
            try:
                job.train(runtime)
            except (RuntimeError, ValueError, SystemExit) as error:
                seconds = time.monotonic() - began
                print(f"process {runtime.rank} after {seconds:.0f} s: {error}", flush=True)
                if job is jobs[-1]:
                    raise


if __name__ == "__main__":
    main()
