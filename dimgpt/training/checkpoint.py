"""Checkpoints: folders that are complete or absent, written in a thread while training continues.

    checkpoints/step-00000500/   model.safetensors, optimizer.safetensors, state.json, manifest.json
    checkpoints/best-00000450/   the same without the optimizer: among the lowest validation losses

The manifest is written last and has the SHA-256 of the other files. A folder is used only if its
hashes agree; a run resumes from the newest such folder.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from dimgpt.files import UNFINISHED, new_folder, sha256_of
from dimgpt.training.tensor_files import load_tensors, write_tensors

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What a run resumes from."""

    step: int
    """Optimizer steps taken."""
    tensors: Mapping[str, Mapping[str, Tensor]]
    """File name without suffix -> tensors by name; empty after loading a sharded checkpoint."""
    state: dict[str, Any]
    """Everything that JSON holds: counters, averages, configs."""
    offsets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """For tensors that are parts: where they begin in the whole tensors."""
    path: Path | None = None
    """The folder it was loaded from."""


class CheckpointStore:
    """The checkpoints of one run; keeps the newest `keep` and the best `keep_best`."""

    def __init__(self, folder: Path, *, keep: int = 2, keep_best: int = 1) -> None:
        self.folder, self.keep, self.keep_best = folder, keep, keep_best

    def save(self, checkpoint: Checkpoint, *, kind: str = "step") -> Path:
        """Write a checkpoint, then delete the older ones of its kind beyond those to keep.

        Args:
            checkpoint: Its tensors are on the CPU.
            kind: `step`, or `best`.

        Raises:
            OSError: It cannot be written; the earlier checkpoints are unchanged.
        """
        path = self.path_of(kind, checkpoint.step)
        self._make_room(checkpoint)
        with new_folder(path) as temporary:
            hashes = {
                f"{name}.safetensors": write_tensors(temporary / f"{name}.safetensors", tensors)
                for name, tensors in checkpoint.tensors.items()
            }
            self._complete(temporary, checkpoint, hashes)
        self._drop(kind, newest=path)
        return path

    def path_of(self, kind: str, step: int) -> Path:
        """Return the folder of a checkpoint."""
        return self.folder / f"{kind}-{step:08d}"

    def load(self, path: Path) -> Checkpoint:
        """Load one checkpoint, of this run or of another.

        Raises:
            ValueError: The folder is damaged, or no checkpoint.
        """
        problem = self._problem_with(path)
        if problem is None:
            try:
                state = json.loads((path / "state.json").read_text(encoding="utf-8"))
                tensors = self._load_tensors(path)
                return Checkpoint(step=state["step"], tensors=tensors, state=state, path=path)
            except (SafetensorError, json.JSONDecodeError) as error:
                problem = str(error)
        raise ValueError(f"checkpoint {path} is damaged ({problem})")

    def load_latest(self) -> Checkpoint | None:
        """Load the newest intact checkpoint, or return `None`; log and skip damaged ones."""
        for path in reversed(self._paths("step")):
            try:
                return self.load(path)
            except ValueError as error:
                log.warning("%s: loading the checkpoint before it", error)
        return None

    def clean(self) -> None:
        """Delete the unfinished folders of a killed run; the caller must hold the run's lock."""
        for path in self.folder.glob(f"*{UNFINISHED}"):
            shutil.rmtree(path, ignore_errors=True)

    def _load_tensors(self, path: Path) -> dict[str, dict[str, Tensor]]:
        return load_tensors(path)

    def _problem_with(self, path: Path) -> str | None:
        """Return in a few words why a checkpoint is damaged; `None` if it is not."""
        manifest = path / "manifest.json"
        if not manifest.is_file():
            return "no manifest.json" if path.is_dir() else "there is no such folder"
        try:
            hashes = json.loads(manifest.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError):
            return "manifest.json is not JSON"
        if not isinstance(hashes, dict) or "state.json" not in hashes:
            return "manifest.json does not name state.json"
        for name, expected in hashes.items():
            file = path / Path(name).name
            if not file.is_file():
                return f"no {name}"
            if sha256_of(file) != expected:
                return f"the sha256 of {name} differs from its manifest"
        return None

    def _make_room(self, checkpoint: Checkpoint) -> None:
        """Delete the oldest checkpoints if the disk has too little space; keep the newest one."""
        tensors = (tensor for named in checkpoint.tensors.values() for tensor in named.values())
        needed = sum(tensor.nbytes for tensor in tensors)
        for path in self._paths("step")[:-1]:
            if shutil.disk_usage(self.folder).free > needed:
                return
            log.warning(
                "the disk has too little space for the checkpoint of step %d: deleting %s",
                checkpoint.step,
                path,
            )
            shutil.rmtree(path, ignore_errors=True)

    def _complete(self, folder: Path, checkpoint: Checkpoint, hashes: Mapping[str, str]) -> None:
        state = json.dumps({"step": checkpoint.step, **checkpoint.state}, indent=1).encode()
        (folder / "state.json").write_bytes(state)
        manifest = {**hashes, "state.json": hashlib.sha256(state).hexdigest()}
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")

    def _drop(self, kind: str, *, newest: Path) -> None:
        """Delete older checkpoints beyond those to keep, and damaged ones of later steps."""
        others = [path for path in self._paths(kind) if path != newest]
        older = [path for path in others if path < newest]
        if kind == "step":
            kept = older[max(len(older) - self.keep + 1, 0) :]
        else:
            kept = sorted(older, key=_validation_loss)[: self.keep_best - 1]
        for path in others:
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def _paths(self, kind: str) -> list[Path]:
        return sorted(
            path
            for path in self.folder.glob(f"{kind}-*")
            if path.is_dir() and path.name.removeprefix(f"{kind}-").isdigit()
        )


def _validation_loss(path: Path) -> float:
    """Return the validation loss of a checkpoint; infinite if it cannot be read."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        return float(state["last_validation"]["loss"])
    return math.inf


class CheckpointWriter:
    """Saves checkpoints in a thread; a step waits only until its tensors are copied.

    The next checkpoint reuses the buffers of the copies, so only one write runs at a time.
    """

    def __init__(self, store: CheckpointStore, device: torch.device) -> None:
        self.store, self.device = store, device
        self.error: Exception | None = None
        """Why the last write failed; `None` if it did not."""
        self._thread: threading.Thread | None = None
        self._copies: dict[tuple[str, str], Tensor] = {}

    def submit(self, checkpoint: Checkpoint, *, kinds: Sequence[str]) -> None:
        """Wait for the previous write, copy the tensors, and begin to write them.

        Args:
            checkpoint: Its tensors may change once this returns; its state must not.
            kinds: What to save it as: `step`, `best` (the weights alone), or both.
        """
        self.wait()
        copies = {
            file: {name: self._copy(file, name, tensor) for name, tensor in named.items()}
            for file, named in checkpoint.tensors.items()
        }
        copied = dataclasses.replace(checkpoint, tensors=copies)
        is_cuda = self.device.type == "cuda"
        arrived = torch.cuda.current_stream(self.device).record_event() if is_cuda else None

        def write() -> None:
            if arrived is not None:
                arrived.synchronize()
            self._write(copied, kinds)

        # Not a daemon thread, so that the process finishes the write before it exits.
        self._thread = threading.Thread(target=write, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait for the current write.

        Raises:
            Exception: The write failed, and not with an `OSError`.
        """
        if self._thread is not None:
            if self._thread.is_alive():  # not if an interrupt came before it began
                self._thread.join()
            self._thread = None
            if self.error is not None and not isinstance(self.error, OSError):
                raise self.error

    def _write(self, checkpoint: Checkpoint, kinds: Sequence[str]) -> None:
        self.error = None
        weights = {"model": checkpoint.tensors["model"]}
        try:
            for kind in kinds:
                is_best = kind == "best"
                tensors = weights if is_best else checkpoint.tensors
                self.store.save(dataclasses.replace(checkpoint, tensors=tensors), kind=kind)
        except OSError as error:
            self.error = error
            log.warning(
                "the checkpoint of step %d could not be written (%s): training continues and the "
                "one before it is kept; free some space before the next checkpoint",
                checkpoint.step,
                error,
            )
        except Exception as error:
            self.error = error  # `wait` raises it in the training thread

    def _copy(self, file: str, name: str, tensor: Tensor) -> Tensor:
        copy = self._copies.get((file, name))
        if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
            # A copy to pinned memory is queued after the kernels and does not block the host.
            is_pinned = self.device.type == "cuda" and tensor.device.type == "cuda"
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=is_pinned)
            self._copies[file, name] = copy
        return copy.copy_(tensor.detach(), non_blocking=copy.is_pinned())
