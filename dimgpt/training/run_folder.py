"""Saves and restores a training run.

history.jsonl    what happened, a record a line
checkpoints/     what the run resumes from
run.json         the settings that rebuild its trainer
lock             held while a trainer uses the folder
"""

import json
import logging
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import Tensor

from dimgpt.config import DROPOUT_FIELDS, LoraConfig, ModelConfig, TrainingConfig
from dimgpt.files import lock_file, replace_file
from dimgpt.model.lora import adapter_tensors
from dimgpt.model.transformer import Transformer
from dimgpt.settings import from_dict, to_dict
from dimgpt.training.checkpoint import Checkpoint, CheckpointStore, CheckpointWriter
from dimgpt.training.distributed import lead, load_latest
from dimgpt.training.optimizer import optimizer_tensors, restore_optimizer
from dimgpt.training.original_run import is_original_run, read_original_run
from dimgpt.training.run_state import RunState
from dimgpt.training.sharding import ShardedCheckpointStore, is_sharded, own_parts, restore_parts
from dimgpt.training.step import Stepper
from dimgpt.training.tensor_files import read_into

log = logging.getLogger(__name__)


def lock_run(folder: Path) -> AbstractContextManager[None]:
    """Hold the lock of a run's folder; create the folder if it is missing.

    Raises:
        RuntimeError: Another process holds it.
    """
    return lock_file(
        folder / "lock",
        refusal=f"another training is running in {folder}: wait until it ends, stop it, or train "
        "under another name",
    )


class RunFolder:
    """The folder of one run; `recipe` is the content of its `run.json`, see `Trainer`."""

    def __init__(
        self,
        path: Path,
        stepper: Stepper,
        *,
        vocabulary: str,
        fingerprints: Mapping[str, str],
        recipe: Mapping[str, Any],
    ) -> None:
        self.path, self.stepper, self.recipe = path, stepper, recipe
        self.model, self.config, self.runtime = stepper.model, stepper.config, stepper.runtime
        self.vocabulary, self.fingerprints = vocabulary, fingerprints
        self.is_sharded = is_sharded(self.config, self.runtime)
        self.checkpoints = self._open_store(path / "checkpoints")
        self.writer = CheckpointWriter(self.checkpoints, self.runtime.device)
        self._saved: tuple[int, int] | None = None

    def resume(self, branch_from: Path | None = None) -> tuple[RunState, dict[str, str]]:
        """Restore the newest checkpoint, else the one to branch from, else start at step 0.

        Returns:
            The state of the run, and the settings that have changed, as `old -> new`.

        Raises:
            RuntimeError: This trainer was stopped before the first checkpoint.
            ValueError: The checkpoint belongs to a run of another model, vocabulary or data; or
                `branch_from` is set for a run with adapters.
        """
        lead(self.checkpoints.clean, self.runtime)
        state, changes = RunState(), {}
        checkpoint, is_branch = load_latest(self.checkpoints, self.runtime), False
        if checkpoint is None and branch_from is not None:
            if self.model.lora.rank:
                raise ValueError(
                    f"branch_from is {branch_from} and lora.rank {self.model.lora.rank}: a run "
                    "with adapters begins at the pretrained model; leave one of the two out"
                )
            checkpoint, is_branch = self._load_to_branch(branch_from), True
        if checkpoint is not None:
            self._require_same_run(checkpoint.state, {} if is_branch else self.fingerprints)
            changes = _differences(checkpoint.state["training"], self.config)
            model = _differences(checkpoint.state["model"], self.model.config)
            changes |= {name: model[name] for name in DROPOUT_FIELDS if name in model}
            lora = _differences(checkpoint.state.get("lora", {}), self.model.lora)
            changes |= {f"lora.{name}": change for name, change in lora.items()}
            state = self._restore(checkpoint)
            if is_branch:
                self.save(state, "step")
            self._saved = (state.step, state.looked_around_at)
        elif self.stepper.optimizer.state:
            raise RuntimeError(
                f"{self.path} has no checkpoint, and the weights of this trainer have changed: "
                "build model and trainer again (in a notebook, run the cells above), and call fit()"
            )
        if self.recipe and self.runtime.is_first:
            replace_file(self.path / "run.json", json.dumps(self.recipe, indent=1).encode())
        return state, changes

    def go_back(self) -> RunState | None:
        """Restore the newest checkpoint; `None` if there is none."""
        lead(self.writer.wait, self.runtime)
        checkpoint = load_latest(self.checkpoints, self.runtime)
        return None if checkpoint is None else self._restore(checkpoint)

    def save(self, state: RunState, *kinds: str) -> None:
        """Begin to write the current state; see `CheckpointWriter.submit` for the kinds."""
        if "step" in kinds:
            self._saved = (state.step, state.looked_around_at)
        if not (self.runtime.is_first or self.is_sharded):
            return
        has_adapters = self.model.lora.rank > 0  # the base model stays in its own folder
        weights = adapter_tensors(self.model) if has_adapters else self.model.state_dict()
        tensors: dict[str, dict[str, Tensor]] = {"model": weights}
        if "step" in kinds:
            tensors["optimizer"] = optimizer_tensors(self.stepper.optimizer, self.model)
            if kept := self.stepper.guard.tensors():
                tensors["step"] = kept
        offsets: dict[str, tuple[int, ...]] = {}
        if self.is_sharded:
            for file, named in tensors.items():
                tensors[file], begins = own_parts(named, is_first=self.runtime.is_first)
                offsets |= begins
        values = self._values(state)
        checkpoint = Checkpoint(step=state.step, tensors=tensors, state=values, offsets=offsets)
        self.writer.submit(checkpoint, kinds=kinds)

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
                f"({self.writer.error}): the one before it is intact; free some space and run again"
            )

    def whole_model(self) -> Transformer:
        """Return the model; a sharded one is read from the last checkpoint, on the CPU."""
        if not self.is_sharded:
            return self.model
        assert self._saved is not None
        model = Transformer(self.model.config)
        read_into(model.state_dict(), self.checkpoints.path_of("step", self._saved[0]))
        return model

    def _values(self, state: RunState) -> dict[str, Any]:
        return state.to_json() | {
            "model": to_dict(self.model.config),
            "training": to_dict(self.config),
            "lora": to_dict(self.model.lora),
            "vocabulary": self.vocabulary,
            "fingerprints": dict(self.fingerprints),
        }

    def _take_over(self, path: Path) -> Checkpoint:
        """Read a run of DimensionGPT's own trainer, and write its history and best weights."""
        if self.is_sharded or self.config.optimizer != "adamw":
            raise ValueError(
                f"branch_from is {path} (sharding {self.config.sharding!r}, optimizer "
                f"{self.config.optimizer!r}): a run of DimensionGPT continues only with optimizer "
                "'adamw' and sharding 'none'; set both"
            )
        run = read_original_run(path, self.model.config)
        before = run.state.tokens / max(run.state.step, 1)
        now = self.config.sequences_per_step * self.model.config.context_length
        if self.runtime.is_first:
            if before != now:
                message = (
                    "%s has %.0f tokens a step, but this run has %d: set batch_size and "
                    "accumulation_steps to keep the first number"
                )
                log.warning(message, path, before, now)
            lines = "".join(json.dumps(record) + "\n" for record in run.history)
            replace_file(self.path / "history.jsonl", lines.encode())
            if run.best is not None:
                state, weights = run.best
                values, tensors = self._values(state), {"model": weights}
                best = Checkpoint(step=state.step, tensors=tensors, state=values)
                self.checkpoints.save(best, kind="best")
        return Checkpoint(step=run.state.step, tensors=run.tensors, state=self._values(run.state))

    def _load_to_branch(self, path: Path) -> Checkpoint:
        """Load a checkpoint of another run, or its newest one, and copy that run's history."""
        if is_original_run(path):
            return self._take_over(path)
        is_run = (path / "checkpoints").is_dir()
        folder = path / "checkpoints" if is_run else path.parent
        store = self._open_store(folder)
        checkpoint = load_latest(store, self.runtime) if is_run else store.load(path)
        found = None if checkpoint is None else checkpoint.path
        if checkpoint is None or found is None or not any(found.glob("optimizer*.safetensors")):
            raise ValueError(
                f"branch_from is {path}: it has no checkpoint with an optimizer; name a folder "
                "checkpoints/step-... of a run"
            )
        history = folder.parent / "history.jsonl"
        if history.is_file() and self.runtime.is_first:
            shutil.copyfile(history, self.path / history.name)
        return checkpoint

    def _require_same_run(self, saved: Mapping[str, Any], fingerprints: Mapping[str, str]) -> None:
        """Compare the architecture and the fingerprints that both sides know."""
        changes = _differences(saved["model"], self.model.config).items()
        differences = {name: change for name, change in changes if name not in DROPOUT_FIELDS}
        adapters = _differences(saved.get("lora", {}), self.model.lora).items()
        differences |= {f"lora.{name}": change for name, change in adapters if name != "dropout"}
        pairs = {
            "vocabulary": (saved["vocabulary"], self.vocabulary),
            "optimizer": (saved["training"].get("optimizer", "adamw"), self.config.optimizer),
        }
        for name, value in fingerprints.items():
            known = saved.get("fingerprints", {}).get(name)
            if known and value:
                pairs[name] = (known, value)
        for name, (old, new) in pairs.items():
            if old != new:
                differences[name] = f"{old[:12]} -> {new[:12]}"
        if differences:
            listed = "; ".join(f"{name}: {change}" for name, change in differences.items())
            is_optimizer = differences.keys() == {"optimizer"}
            other = "another optimizer" if is_optimizer else "another model or other data"
            raise ValueError(
                f"this folder holds a run of {other} (saved -> asked for: {listed}): use the saved "
                "settings, or train under another name"
            )

    def _open_store(self, folder: Path) -> CheckpointStore:
        keep = {"keep": self.config.keep_checkpoints, "keep_best": self.config.keep_best}
        if self.is_sharded:
            return ShardedCheckpointStore(folder, self.runtime, **keep)
        return CheckpointStore(folder, **keep)

    def _restore(self, checkpoint: Checkpoint) -> RunState:
        optimizer, guard = self.stepper.optimizer, self.stepper.guard
        optimizer.state.clear()
        if checkpoint.tensors:
            is_whole = not self.model.lora.rank
            self.model.load_state_dict(checkpoint.tensors["model"], strict=is_whole)
            restore_optimizer(optimizer, self.model, checkpoint.tensors["optimizer"])
            guard.restore(checkpoint.tensors.get("step", {}))
        else:
            assert checkpoint.path is not None
            guard.restore(restore_parts(self.model, optimizer, checkpoint.path))
        state = RunState.from_json(checkpoint.state)
        self.stepper.num_rows = state.micro_batch_rows
        return state


def _differences(
    saved: dict[str, Any], new: ModelConfig | TrainingConfig | LoraConfig
) -> dict[str, str]:
    before = to_dict(from_dict(type(new), saved))
    return {
        name: f"{before[name]} -> {value}"
        for name, value in to_dict(new).items()
        if before[name] != value
    }
