"""What of a run is on the disk: its tensors and counters go there, and come back.

    history.jsonl    what happened, a record a line
    checkpoints/     what the run goes on from
    run.json         what it takes to build its trainer again
    lock             held while a trainer is at work

When that happens is `trainer.py`'s matter.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import Tensor

from dimgpt.config import TrainingConfig
from dimgpt.files import replace_file
from dimgpt.model.transformer import Transformer
from dimgpt.settings import to_dict
from dimgpt.training.checkpoint import Checkpoint, CheckpointStore
from dimgpt.training.checkpoint_writer import CheckpointWriter
from dimgpt.training.metrics import History
from dimgpt.training.optimizer import optimizer_tensors, restore_optimizer
from dimgpt.training.resume import changed_settings, require_same_run
from dimgpt.training.run_state import RunState
from dimgpt.training.sharded_checkpoint import ShardedCheckpointStore
from dimgpt.training.sharding import offsets_of, parts_of, restore_parts
from dimgpt.training.step import Stepper
from dimgpt.training.tensor_parts import read_into
from dimgpt.training.trackers import open_trackers


class RunFolder:
    """Saves and restores one run.

    Args:
        path: The folder.
        model: What is trained.
        stepper: Its optimizer and what else a step remembers.
        config: The run.
        vocabulary: Fingerprint of the vocabulary.
        fingerprints: Others, by name.
        recipe: What `run.json` is to hold.
    """

    def __init__(
        self,
        path: Path,
        *,
        model: Transformer,
        stepper: Stepper,
        config: TrainingConfig,
        vocabulary: str,
        fingerprints: Mapping[str, str],
        recipe: Mapping[str, Any],
    ) -> None:
        self.path, self.model, self.stepper, self.config = path, model, stepper, config
        self.vocabulary, self.fingerprints, self.recipe = vocabulary, fingerprints, recipe
        self.runtime, self.processes = stepper.runtime, stepper.processes
        self.history = History(path / "history.jsonl")
        self.is_sharded = stepper.gradient.is_sharded
        self.checkpoints = self._open_store(path / "checkpoints")
        self.writer = CheckpointWriter(self.checkpoints, stepper.runtime.device)
        self._saved: tuple[int, int] | None = None

    def resume(self, branch_from: Path | None = None) -> tuple[RunState, dict[str, str]]:
        """Go on from the newest checkpoint, else from the one to branch from, else from nothing.

        Returns:
            Where the run is, and the settings that have changed.

        Raises:
            ValueError: The checkpoint belongs to a run of another model, vocabulary or data.
        """
        self.processes.lead(self.checkpoints.clean)
        checkpoint = self._load_latest()
        is_branch = checkpoint is None and branch_from is not None
        if is_branch:
            checkpoint = self._load_to_branch(branch_from)  # type: ignore[arg-type]
        if checkpoint is None:
            self._rewind(0)
            self._write_recipe()
            return RunState(), {}
        require_same_run(
            checkpoint.state,
            model=self.model.config,
            vocabulary=self.vocabulary,
            others={} if is_branch else self.fingerprints,
        )
        state = self._restore(checkpoint)
        if is_branch:
            self.save(state, "step")
        self._saved = (state.step, state.looked_around_at)
        self._write_recipe()
        return state, changed_settings(checkpoint.state, self.config)

    def open_trackers(self, step: int) -> AbstractContextManager[list[Callable[[Any], None]]]:
        """Open what the run shows itself in, from a step on; see `trackers.py`."""
        settings = to_dict(self.model.config) | to_dict(self.config)
        trackers = self.config.trackers if self.runtime.is_first else ()
        return open_trackers(trackers, self.path, step=step, settings=settings)

    def go_back(self) -> RunState | None:
        """Put everything back to the newest checkpoint; `None` where there is none."""
        self.processes.lead(self.writer.wait)
        checkpoint = self._load_latest()
        return None if checkpoint is None else self._restore(checkpoint)

    def save(self, state: RunState, *kinds: str) -> None:
        """Begin to write the run as it is; see `CheckpointWriter.submit` for the kinds."""
        if "step" in kinds:
            self._saved = (state.step, state.looked_around_at)
        if not (self.runtime.is_first or self.is_sharded):
            return
        tensors: dict[str, dict[str, Tensor]] = {"model": self.model.state_dict()}
        if "step" in kinds:
            tensors["optimizer"] = optimizer_tensors(self.stepper.optimizer, self.model)
            if kept := self.stepper.tensors():
                tensors["step"] = kept
        offsets: dict[str, tuple[int, ...]] = {}
        if self.is_sharded:
            for file, named in tensors.items():
                offsets |= offsets_of(named)
                tensors[file] = parts_of(named, is_first=self.runtime.is_first)
        values = state.to_json() | {
            "model": to_dict(self.model.config),
            "training": to_dict(self.config),
            "vocabulary": self.vocabulary,
            "fingerprints": dict(self.fingerprints),
        }
        self.writer.submit(state.step, tensors, values, kinds=kinds, offsets=offsets)

    def finish(self, state: RunState) -> None:
        """Save what has not been saved yet, and wait until it is on the disk.

        Raises:
            OSError: It cannot be written.
        """
        self.writer.wait()
        is_saved = self._saved == (state.step, state.looked_around_at)
        if state.step > 0 and not (is_saved and self.writer.error is None):
            self.save(state, "step")
            self.writer.wait()
        if self.writer.error is not None:
            raise OSError(
                f"the last checkpoint, of step {state.step}, could not be written "
                f"({self.writer.error}): the one before it is whole; free some space and run again"
            )

    def whole_model(self) -> Transformer:
        """Return the model; of one in parts, what was saved last, put together on the CPU."""
        if not self.is_sharded:
            return self.model
        assert self._saved is not None
        model = Transformer(self.model.config)
        read_into(model.state_dict(), self.checkpoints.path_of("step", self._saved[0]))
        return model

    def _load_latest(self) -> Checkpoint | None:
        """Load the newest checkpoint that is whole, the same one in all processes."""
        checkpoint = self.checkpoints.load_latest()
        self.processes.require_same_checkpoint(-1 if checkpoint is None else checkpoint.step)
        return checkpoint

    def _load_to_branch(self, path: Path) -> Checkpoint:
        """Load a checkpoint of another run, and take over the history that led to it."""
        checkpoint, history = _load_checkpoint_of(path, self._open_store)
        if history.is_file() and self.runtime.is_first:
            self.path.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(history, self.history.path)
        return checkpoint

    def _open_store(self, folder: Path) -> CheckpointStore:
        keep = self.config.keep_checkpoints
        if self.is_sharded:
            return ShardedCheckpointStore(folder, self.runtime, keep=keep)
        return CheckpointStore(folder, keep=keep)

    def _rewind(self, step: int) -> None:
        if self.runtime.is_first:
            self.history.rewind(step)

    def _write_recipe(self) -> None:
        if self.recipe and self.runtime.is_first:
            replace_file(self.path / "run.json", json.dumps(self.recipe, indent=1).encode())

    def _restore(self, checkpoint: Checkpoint) -> RunState:
        self.stepper.optimizer.state.clear()
        if self.is_sharded:
            assert checkpoint.path is not None
            rest = restore_parts(self.model, self.stepper.optimizer, checkpoint.path)
            self.stepper.restore(rest)
        else:
            self.model.load_state_dict(checkpoint.tensors["model"])
            restore_optimizer(self.stepper.optimizer, self.model, checkpoint.tensors["optimizer"])
            self.stepper.restore(checkpoint.tensors.get("step", {}))
        state = RunState.from_json(checkpoint.state)
        self.stepper.micro_batches.num_rows = state.micro_batch_rows
        self._rewind(state.step)
        return state


def _load_checkpoint_of(
    path: Path, open_store: Callable[[Path], CheckpointStore]
) -> tuple[Checkpoint, Path]:
    """Load a checkpoint of a run, or the newest one of it; return it and the run's history."""
    if (path / "checkpoints").is_dir():
        checkpoint, run_dir = open_store(path / "checkpoints").load_latest(), path
    else:
        checkpoint, run_dir = open_store(path.parent).load(path), path.parent.parent
    if checkpoint is None or not checkpoint.has_optimizer:
        raise ValueError(
            f"branch_from is {path}: it has no checkpoint with an optimizer; take a folder "
            "checkpoints/step-... of a run"
        )
    return checkpoint, run_dir / "history.jsonl"
