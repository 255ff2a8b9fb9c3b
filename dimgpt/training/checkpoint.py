"""Checkpoints: folders that are complete or not there.

    checkpoints/step-00000500/   model.safetensors, optimizer.safetensors, state.json, manifest.json
    checkpoints/best-00000450/   the same without the optimizer: the lowest validation loss so far

The manifest is written last and holds the SHA-256 of the other files; a folder is trusted only if
they agree, and the newest one that does is the one a run goes on from. Nothing here knows what is
saved: tensors and plain values, under names. When it is written is `checkpoint_writer.py`'s.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dimgpt.files import UNFINISHED, new_folder, sha256_of
from dimgpt.training.hashed_file import write_tensors
from dimgpt.training.tensor_parts import are_parts, read_whole

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What a run goes on from."""

    step: int
    """Optimizer steps taken."""
    tensors: Mapping[str, Mapping[str, Tensor]]
    """File name without suffix -> tensors by name."""
    state: dict[str, Any]
    """Everything that JSON holds: counters, averages, configs."""
    offsets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Tensors that are parts -> where in the whole ones they begin."""
    path: Path | None = None
    """Where it was loaded from."""

    @property
    def has_optimizer(self) -> bool:
        """Say whether training can go on from it."""
        stored = [] if self.path is None else self.path.glob("optimizer*.safetensors")
        return "optimizer" in self.tensors or any(stored)


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: Where they are; made when the first one is saved.
        keep: Number of the newest ones that stay.
    """

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, checkpoint: Checkpoint, *, kind: str = "step") -> Path:
        """Write a checkpoint, then drop the ones of its kind that are no longer kept.

        Args:
            checkpoint: Its tensors are on the CPU.
            kind: `step`, or `best`, of which one is kept.

        Raises:
            OSError: It cannot be written; the ones before it are as they were.
        """
        path = self.path_of(kind, checkpoint.step)
        with new_folder(path) as temporary:
            hashes = {
                f"{name}.safetensors": write_tensors(temporary / f"{name}.safetensors", tensors)
                for name, tensors in checkpoint.tensors.items()
            }
            self.complete(temporary, checkpoint, hashes)
        self._drop(kind, newest=path)
        return path

    def complete(self, folder: Path, checkpoint: Checkpoint, hashes: Mapping[str, str]) -> None:
        """Write the state, and last the manifest, of which `hashes` are those of the tensors."""
        state = json.dumps({"step": checkpoint.step, **checkpoint.state}, indent=1).encode()
        (folder / "state.json").write_bytes(state)
        manifest = {**hashes, "state.json": hashlib.sha256(state).hexdigest()}
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")

    def path_of(self, kind: str, step: int) -> Path:
        """Return where a checkpoint belongs."""
        return self.folder / f"{kind}-{step:08d}"

    def load(self, path: Path) -> Checkpoint:
        """Load a checkpoint of whatever folder; see `load_checkpoint`."""
        return load_checkpoint(path)

    def load_latest(self) -> Checkpoint | None:
        """Load the newest checkpoint that is whole; `None` when there is none.

        Damaged ones are named in the log and passed over.
        """
        for path in reversed(self._paths("step")):
            try:
                return self.load(path)
            except ValueError as error:
                log.warning("%s: taking the one before it", error)
        return None

    def clean(self) -> None:
        """Remove what a killed run has left half written; only for who holds the run's lock."""
        for path in self.folder.glob(f"*{UNFINISHED}"):
            shutil.rmtree(path, ignore_errors=True)

    def _drop(self, kind: str, *, newest: Path) -> None:
        """Remove what `newest` replaces; what claims to be newer was damaged and passed over."""
        others = [path for path in self._paths(kind) if path != newest]
        older = [path for path in others if path < newest]
        kept = older[max(len(older) - self.keep + 1, 0) :] if kind == "step" else []
        for path in others:
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)

    def _paths(self, kind: str) -> list[Path]:
        return sorted(
            path
            for path in self.folder.glob(f"{kind}-*")
            if path.is_dir() and path.name.removeprefix(f"{kind}-").isdigit()
        )


def load_checkpoint(path: Path, *, with_tensors: bool = True, is_known: bool = False) -> Checkpoint:
    """Load one checkpoint.

    Args:
        path: Its folder.
        with_tensors: Load them, and put together what lies in parts.
        is_known: Someone else has compared it with its manifest.

    Raises:
        ValueError: It is damaged, or no checkpoint.
    """
    problem = None if is_known else _problem_with(path)
    if problem is None:
        try:
            state = json.loads((path / "state.json").read_text(encoding="utf-8"))
            tensors = _load_tensors(path) if with_tensors else {}
            return Checkpoint(step=state["step"], tensors=tensors, state=state, path=path)
        except (SafetensorError, json.JSONDecodeError) as error:
            problem = str(error)
    raise ValueError(f"checkpoint {path} is damaged ({problem})")


def _load_tensors(path: Path) -> dict[str, dict[str, Tensor]]:
    if are_parts(path):
        return read_whole(path)
    return {file.stem: load_file(file) for file in sorted(path.glob("*.safetensors"))}


def _problem_with(path: Path) -> str | None:
    """Say in a few words why a checkpoint is not whole; `None` when it is."""
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
            return f"{name} has another sha256 than its manifest says"
    return None
