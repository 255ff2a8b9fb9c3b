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
from dimgpt.training.checkpoint import Checkpoint, CheckpointStore, load_checkpoint
from dimgpt.training.checkpoint_writer import CheckpointWriter
from dimgpt.training.metrics import History
from dimgpt.training.optimizer import optimizer_tensors, restore_optimizer
from dimgpt.training.resume import changed_settings, require_same_run
from dimgpt.training.run_state import RunState
from dimgpt.training.step import Stepper
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
        self.history = History(path / "history.jsonl")
        self.checkpoints = CheckpointStore(path / "checkpoints", keep=config.keep_checkpoints)
        self.writer = CheckpointWriter(self.checkpoints, stepper.runtime.device)
        self._saved: tuple[int, int] | None = None

    def resume(self, branch_from: Path | None = None) -> tuple[RunState, dict[str, str]]:
        """Go on from the newest checkpoint, else from the one to branch from, else from nothing.

        Returns:
            Where the run is, and the settings that have changed.

        Raises:
            ValueError: The checkpoint belongs to a run of another model, vocabulary or data.
        """
        self.checkpoints.clean()
        checkpoint = self.checkpoints.load_latest()
        is_branch = checkpoint is None and branch_from is not None
        if is_branch:
            checkpoint = _load_to_branch(branch_from, self.history)  # type: ignore[arg-type]
        if checkpoint is None:
            self.history.rewind(0)
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
        return open_trackers(self.config.trackers, self.path, step=step, settings=settings)

    def go_back(self) -> RunState | None:
        """Put everything back to the newest checkpoint; `None` where there is none."""
        self.writer.wait()
        checkpoint = self.checkpoints.load_latest()
        return None if checkpoint is None else self._restore(checkpoint)

    def save(self, state: RunState, *kinds: str) -> None:
        """Begin to write the run as it is; see `CheckpointWriter.submit` for the kinds."""
        tensors: dict[str, dict[str, Tensor]] = {"model": self.model.state_dict()}
        if "step" in kinds:
            tensors["optimizer"] = optimizer_tensors(self.stepper.optimizer, self.model)
            if kept := self.stepper.tensors():
                tensors["step"] = kept
            self._saved = (state.step, state.looked_around_at)
        values = state.to_json() | {
            "model": to_dict(self.model.config),
            "training": to_dict(self.config),
            "vocabulary": self.vocabulary,
            "fingerprints": dict(self.fingerprints),
        }
        self.writer.submit(state.step, tensors, values, kinds=kinds)

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

    def _write_recipe(self) -> None:
        if self.recipe:
            replace_file(self.path / "run.json", json.dumps(self.recipe, indent=1).encode())

    def _restore(self, checkpoint: Checkpoint) -> RunState:
        self.model.load_state_dict(checkpoint.tensors["model"])
        self.stepper.optimizer.state.clear()
        restore_optimizer(self.stepper.optimizer, self.model, checkpoint.tensors["optimizer"])
        self.stepper.restore(checkpoint.tensors.get("step", {}))
        state = RunState.from_json(checkpoint.state)
        self.stepper.micro_batches.num_rows = state.micro_batch_rows
        self.history.rewind(state.step)
        return state


def _load_to_branch(path: Path, history: History) -> Checkpoint:
    """Load a checkpoint of another run, or the newest one of a run, and take over its history."""
    if (path / "checkpoints").is_dir():
        checkpoint, run_dir = CheckpointStore(path / "checkpoints").load_latest(), path
    else:
        checkpoint, run_dir = load_checkpoint(path), path.parent.parent
    if checkpoint is None or "optimizer" not in checkpoint.tensors:
        raise ValueError(
            f"branch_from is {path}: it has no checkpoint with an optimizer; take a folder "
            "checkpoints/step-... of a run"
        )
    if (run_dir / "history.jsonl").is_file():
        history.path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run_dir / "history.jsonl", history.path)
    return checkpoint
