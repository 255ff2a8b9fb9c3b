"""Checkpoints that several processes write together, each its parts.

    checkpoints/step-00000500/   model-00001-of-00002.safetensors, model-00002-of-00002.safetensors,
                                 optimizer-..., state.json, manifest.json

Any number of processes can go on from them, and these from any checkpoint; see `tensor_parts.py`.
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from dimgpt.files import new_folder, sync_folder, unfinished
from dimgpt.runtime import Runtime
from dimgpt.training.checkpoint import Checkpoint, CheckpointStore, load_checkpoint
from dimgpt.training.hashed_file import write_tensors
from dimgpt.training.tensor_parts import part_header, part_name

T = TypeVar("T")


class ShardedCheckpointStore(CheckpointStore):
    """The checkpoints of a run whose processes hold parts of the tensors.

    All processes must save the same ones in the same order, from whatever thread.

    Args:
        folder: Where they are, on a disk that all processes share.
        runtime: This process among them.
        keep: Number of the newest ones that stay.
    """

    def __init__(self, folder: Path, runtime: Runtime, *, keep: int = 2) -> None:
        super().__init__(folder, keep=keep)
        self.runtime = runtime
        # Its own group: another thread may be talking in the run's.
        self._group = dist.new_group(backend="gloo")

    def save(self, checkpoint: Checkpoint, *, kind: str = "step") -> Path:
        """Write a checkpoint; its tensors are this process's parts.

        Raises:
            OSError: One of the processes cannot write; the checkpoints before are as they were.
        """
        path = self.path_of(kind, checkpoint.step)
        temporary = unfinished(path)
        is_first = self.runtime.is_first
        with contextlib.ExitStack() as stack:
            self._together(lambda: is_first and stack.enter_context(new_folder(path)))
            written = self._together(lambda: self._write_parts(temporary, checkpoint))
            hashes = self._gather(written)
            if is_first:
                stack.callback(self.complete, temporary, checkpoint, hashes)
            self._together(stack.close)
        if is_first:
            self._drop(kind, newest=path)
        return path

    def load(self, path: Path) -> Checkpoint:
        """Load a checkpoint without its tensors, of which each process reads its parts."""
        return load_checkpoint(path, with_tensors=False, is_known=not self.runtime.is_first)

    def load_latest(self) -> Checkpoint | None:
        """Load the newest checkpoint that is whole, which the first process looks for."""
        checkpoint = super().load_latest() if self.runtime.is_first else None
        step = torch.tensor([-1 if checkpoint is None else checkpoint.step])
        dist.broadcast(step, src=0, group=self._group)
        if not self.runtime.is_first and step >= 0:
            checkpoint = self.load(self.path_of("step", int(step)))
        return checkpoint

    def _write_parts(self, folder: Path, checkpoint: Checkpoint) -> dict[str, str]:
        """Write the own parts; return the hashes by file, of no parts an empty one."""
        hashes = {}
        for name, tensors in checkpoint.tensors.items():
            file = folder / f"{self._part(name, self.runtime.rank)}.safetensors"
            offsets = {
                key: checkpoint.offsets.get(key, (0,) * t.dim()) for key, t in tensors.items()
            }
            hashes[name] = ""
            if tensors:
                hashes[name] = write_tensors(file, tensors, header=part_header(offsets))
                sync_folder(file)  # a shared disk may know nothing of another machine's flush
        return hashes

    def _part(self, name: str, rank: int) -> str:
        return part_name(name, rank=rank, num_parts=self.runtime.num_processes)

    def _gather(self, hashes: Mapping[str, str]) -> dict[str, str]:
        """Return the hashes of the files of all processes."""
        own = torch.tensor([list(bytes.fromhex(hashed or "00" * 32)) for hashed in hashes.values()])
        found = [torch.empty_like(own) for _ in range(self.runtime.num_processes)]
        dist.all_gather(found, own, group=self._group)
        return {
            f"{self._part(name, rank)}.safetensors": bytes(row).hex()
            for rank, rows in enumerate(found)
            for name, row in zip(hashes, rows.tolist(), strict=True)
            if any(row)
        }

    def _together(self, work: Callable[[], T]) -> T:
        """Do something in every process; what fails in one fails in all."""
        error: OSError | None = None
        try:
            result = work()
        except OSError as caught:
            error = caught
        num_failed = torch.tensor([int(error is not None)])
        dist.all_reduce(num_failed, group=self._group)
        if error is not None:
            raise error
        if num_failed > 0:
            raise OSError("another process could not write its part")
        return result
