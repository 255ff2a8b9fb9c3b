"""The trainer: takes steps, looks at itself now and then, and can be stopped at any moment.

It is given a model, batches that are a pure function of the step, and a folder. It knows no text
and no plot: who wants to watch passes observers, who wants samples passes a function that makes
one. Running it again in the same folder goes on where the last checkpoint ends.
"""

import contextlib
import json
import math
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from dimgpt.config import TrainingConfig
from dimgpt.data.batch import Batch, prefetch
from dimgpt.model.flops import training_flops_per_token
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime, peak_flops
from dimgpt.settings import to_dict
from dimgpt.training.checkpoint import Checkpoint, CheckpointStore
from dimgpt.training.interrupts import catch_interrupts
from dimgpt.training.loss import compiled_loss
from dimgpt.training.metrics import History, MovingAverages, Stopwatch
from dimgpt.training.optimizer import build_optimizer, optimizer_tensors, restore_optimizer
from dimgpt.training.schedule import learning_rate_at
from dimgpt.training.summary import TrainingSummary
from dimgpt.training.validation import validate

Record = dict[str, Any]
Observer = Callable[[Record], None]


class TrainingData(Protocol):
    """Where batches come from: pure functions, so that a resumed run sees what it would have."""

    def batches(self, step: int) -> list[Batch]:
        """Return the micro-batches of an optimizer step."""
        ...

    def validation_batches(self, num_batches: int) -> Iterable[Batch]:
        """Return held-out batches, the same ones each time."""
        ...


class Trainer:
    """One run of one model in one folder.

    Args:
        model: Trained in place, on the runtime's device.
        data: Its batches.
        config: The run.
        run_dir: Gets `history.jsonl` and `checkpoints/`.
        runtime: Device and precision.
        vocabulary: Fingerprint of the vocabulary; a run resumes only with the same one.
        byte_counts: UTF-8 bytes that each token stands for, (vocab_size,); gives bits per byte.
        sample: Makes the text that is kept every `sample_interval` steps.
        observers: Called with every record that goes to the history.
    """

    def __init__(
        self,
        model: Transformer,
        data: TrainingData,
        config: TrainingConfig,
        *,
        run_dir: Path,
        runtime: Runtime,
        vocabulary: str = "",
        byte_counts: np.ndarray | None = None,
        sample: Callable[[], str] | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.model, self.data, self.config = model.to(runtime.device), data, config
        self.runtime, self.vocabulary, self.sample = runtime, vocabulary, sample
        self.byte_counts = None if byte_counts is None else torch.from_numpy(byte_counts)
        self.observers = observers
        self.history = History(run_dir / "history.jsonl")
        self.checkpoints = CheckpointStore(run_dir / "checkpoints")
        self.optimizer = build_optimizer(model, config)
        self.scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.needs_loss_scaling)
        self._loss_sums = compiled_loss(model, config, runtime)
        self.averages = MovingAverages(decay=config.metrics_decay)
        self.step, self.tokens, self.best_loss = 0, 0, math.inf
        self.stopwatch = Stopwatch()
        self.last_validation: Record = {}

    def fit(self) -> TrainingSummary:
        """Train until `max_steps`, or until interrupted; save either way.

        Raises:
            FloatingPointError: The loss or the gradient is no longer finite.
            ValueError: The folder holds a run of another model or vocabulary.
            SystemExit: SIGTERM came; the checkpoint is written, the status is 143.
        """
        changes = self._resume()
        self._emit("start", max_steps=self.config.max_steps, changes=changes)
        self._peak_flops = peak_flops(self.runtime)
        steps = prefetch(self._read_batches, self.step + 1, self.config.max_steps + 1)
        with catch_interrupts() as interrupt, contextlib.closing(steps):
            for batches in steps:
                self._take_step(batches)
                self._look_around()
                if interrupt.signal is not None:
                    self._save()
                    break
        if interrupt.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        return self.summary()

    def _read_batches(self, step: int) -> list[Batch]:
        """Make the batches of a step, in the prefetching thread."""
        batches = self.data.batches(step)
        if self.runtime.device.type == "cuda":
            return [batch.pin_memory() for batch in batches]
        return batches

    def _take_step(self, batches: list[Batch]) -> None:
        """Update the weights once with the gradient of all the micro-batches together."""
        step, config, started = self.step + 1, self.config, self.stopwatch.seconds
        learning_rate = learning_rate_at(step, config)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        torch.manual_seed(config.seed + step)  # dropout, too, depends on the step alone
        self.model.train()
        weight = max(sum(float(batch.weights.sum()) for batch in batches), 1e-8)
        sums = torch.zeros(2, device=self.runtime.device)
        for batch in batches:
            with self.runtime.autocast():
                loss, correct = self._loss_sums(batch.to(self.runtime.device))
            self.scaler.scale(loss / weight).backward()
            sums += torch.stack((loss.detach(), correct))
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.max_grad_norm)
        # The one place of a step where the host waits for the device.
        loss_sum, correct_sum, norm_value = torch.cat((sums, norm[None])).tolist()
        self._check_finite(loss_sum, norm_value, step=step, learning_rate=learning_rate)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step = step
        self._record_step(
            num_tokens=sum(batch.inputs.numel() for batch in batches),
            duration=self.stopwatch.seconds - started,
            learning_rate=learning_rate,
            loss=loss_sum / weight,
            accuracy=correct_sum / weight,
            grad_norm=norm_value,
        )

    def _check_finite(self, loss: float, norm: float, *, step: int, learning_rate: float) -> None:
        # With loss scaling an overflowing gradient is expected: the scaler skips the step.
        if math.isfinite(loss) and (math.isfinite(norm) or self.scaler.is_enabled()):
            return
        raise FloatingPointError(
            f"step {step}: the loss is {loss}, the gradient norm {norm}, at learning rate "
            f"{learning_rate:.3g}; the weights are those of step {step - 1}, the last checkpoint "
            "is untouched: lower learning_rate or raise warmup_steps, and run again"
        )

    def _record_step(self, *, num_tokens: int, duration: float, **measured: float) -> None:
        self.tokens += num_tokens
        speed = num_tokens / duration
        self.averages.update(
            loss=measured["loss"], accuracy=measured["accuracy"], tokens_per_second=speed
        )
        averages = self.averages.values
        flops = averages["tokens_per_second"] * training_flops_per_token(self.model.config)
        self._emit(
            "step",
            **measured,
            loss_average=averages["loss"],
            accuracy_average=averages["accuracy"],
            tokens_per_second=averages["tokens_per_second"],
            mfu=flops / self._peak_flops,
        )

    def _look_around(self) -> None:
        """Validate, sample and save where this step is due for it, and at the end."""
        is_last = self.step == self.config.max_steps
        if is_last or self.step % self.config.validation_interval == 0:
            self._validate()
        if self.sample and (is_last or self.step % self.config.sample_interval == 0):
            self.model.eval()
            self._emit("sample", text=self.sample())
        if is_last or self.step % self.config.checkpoint_interval == 0:
            self._save()

    def _validate(self) -> None:
        self.model.eval()
        self.last_validation = validate(
            self._loss_sums,
            self.data.validation_batches(self.config.validation_batches),
            runtime=self.runtime,
            byte_counts=self.byte_counts,
        )
        self._emit("validation", **self.last_validation)
        if self.last_validation["loss"] < self.best_loss:
            self.best_loss = self.last_validation["loss"]
            weights = {"model": self.model.state_dict()}
            best = Checkpoint(step=self.step, tensors=weights, state=self._state())
            self.checkpoints.save(best, kind="best")

    def _save(self) -> None:
        tensors = {
            "model": self.model.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.model),
        }
        self.checkpoints.save(Checkpoint(step=self.step, tensors=tensors, state=self._state()))

    def _state(self) -> Record:
        return {
            "model": to_dict(self.model.config),
            "training": to_dict(self.config),
            "vocabulary": self.vocabulary,
            "tokens": self.tokens,
            "seconds": self.stopwatch.seconds,
            "averages": self.averages.values,
            "best_loss": self.best_loss if math.isfinite(self.best_loss) else None,
            "last_validation": self.last_validation,
            "scaler": self.scaler.state_dict(),
        }

    def _resume(self) -> dict[str, str]:
        """Go on from the newest checkpoint of the folder, if any; return the settings changed."""
        checkpoint = self.checkpoints.load_latest()
        if checkpoint is None:
            self.stopwatch = Stopwatch()
            self.history.rewind(0)
            return {}
        state = checkpoint.state
        _require_same_run(state, model=to_dict(self.model.config), vocabulary=self.vocabulary)
        self.model.load_state_dict(checkpoint.tensors["model"])
        restore_optimizer(self.optimizer, self.model, checkpoint.tensors["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.tokens = checkpoint.step, state["tokens"]
        self.stopwatch = Stopwatch(before=state["seconds"])
        self.averages.values = dict(state["averages"])
        self.best_loss = math.inf if state["best_loss"] is None else state["best_loss"]
        self.last_validation = state["last_validation"]
        self.history.rewind(self.step)
        return _changes(state["training"], to_dict(self.config))

    def _emit(self, kind: str, **values: Any) -> None:
        """Append a record to the history, and show it to the observers."""
        record = {
            "kind": kind,
            "step": self.step,
            "tokens": self.tokens,
            "seconds": round(self.stopwatch.seconds, 3),
            **values,
        }
        self.history.append(record)
        for observer in self.observers:
            observer(record)

    def summary(self) -> TrainingSummary:
        """Return what the run took and reached so far."""
        return TrainingSummary(
            step=self.step,
            tokens=self.tokens,
            flops=self.tokens * training_flops_per_token(self.model.config),
            seconds=self.stopwatch.seconds,
            loss=self.averages.values.get("loss", math.nan),
            accuracy=self.averages.values.get("accuracy", math.nan),
            validation_loss=self.last_validation.get("loss"),
            validation_accuracy=self.last_validation.get("accuracy"),
            bits_per_byte=self.last_validation.get("bits_per_byte"),
            is_finished=self.step >= self.config.max_steps,
        )


def _require_same_run(state: Record, *, model: Record, vocabulary: str) -> None:
    differences = _changes(state["model"], model)
    if state["vocabulary"] != vocabulary:
        differences["vocabulary"] = f"{state['vocabulary'][:12]} -> {vocabulary[:12]}"
    if differences:
        listed = "; ".join(f"{name}: {change}" for name, change in differences.items())
        raise ValueError(
            f"this folder holds a run of another model (saved -> asked for: {listed}): "
            "go back to its settings, or train in another folder"
        )


def _changes(old: Record, new: Record) -> dict[str, str]:
    """Return the fields that differ, as `old -> new`; JSON has made lists of tuples."""
    return {
        name: f"{old.get(name)} -> {value}"
        for name, value in json.loads(json.dumps(new)).items()
        if old.get(name) != value
    }
