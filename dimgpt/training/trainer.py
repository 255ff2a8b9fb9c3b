"""Trains a model in a run folder: decides what happens when, from the first step to the last.

`data.batches(step)` returns the batches of any step, so a resumed run sees the same ones. Pass
`observers` to watch the run, `sample` to generate text during it, and `score` to measure more at a
validation. Training again in the same folder resumes from the last checkpoint. One step of one
process on one device:

    prefetch thread     data.batches(step) -> take_share: the rows of the step
          |
    step.py             zero_grad
      for each micro-batch: forward -> loss / weight of the step -> backward
          |             clip -> guard: verdict -> optimizer.step, unless the verdict skips it
          |
    (while the device computes, the host reads the values of the step before)
          |
    journal.py          count the step, append it to history.jsonl, call the observers
          |
    at intervals        validation -> "best" checkpoint; sample; "step" checkpoint in a thread

When memory runs out, the micro-batches are halved and the step is repeated. After five non-finite
steps in a row, the run returns to the last checkpoint. With several processes (`distributed.py`),
each computes its share of the rows; gradients and losses are summed before clipping.
"""

import contextlib
import math
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from dimgpt.config import TrainingConfig
from dimgpt.data.reading.batch import prefetch
from dimgpt.model.flops import training_flops_per_token
from dimgpt.model.lora import trained_share
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime
from dimgpt.settings import to_dict
from dimgpt.training.distributed import build_stepper, lead, place_model
from dimgpt.training.guard import Verdict
from dimgpt.training.interrupts import Interrupt, catch_interrupts, frees_memory
from dimgpt.training.journal import Journal, Observer, Record
from dimgpt.training.loss import compiled_loss
from dimgpt.training.micro_batches import StepRows, TrainingData, share_of, take_share
from dimgpt.training.optimizer import build_optimizer
from dimgpt.training.run_folder import RunFolder, lock_run
from dimgpt.training.run_state import RunState, TrainingSummary
from dimgpt.training.step import PendingStep, StepResult
from dimgpt.training.trackers import open_trackers
from dimgpt.training.watchdog import Watchdog

# Non-finite steps in a row after which the run goes back to its last checkpoint.
_MAX_BAD_IN_A_ROW = 5


class Trainer:
    """One run of one model in one folder.

    Args:
        model: Trained in place, on the runtime's device.
        run_dir: Gets `history.jsonl` and `checkpoints/`.
        vocabulary: Fingerprint of the vocabulary. A run resumes only with the same fingerprints.
        data_fingerprint: Fingerprint of the token files that the batches are drawn from.
        base_fingerprint: Fingerprint of the weights that the model begins with.
        num_train_tokens: Tokens of the training split; needed to count epochs.
        byte_counts: UTF-8 bytes of each token, (vocab_size,); needed for bits per byte.
        sample: Generates the text that is recorded every `sample_interval` steps.
        score: Returns further losses by name, in nats per word. They are added to the record of
            each validation. Every process calls it.
        observers: Called with every record that goes to the history.
        branch_from: A checkpoint, the folder of a run, or the `output/` of the original
            DimensionGPT. A new run begins with all its state; the data may differ. Once this run
            has a checkpoint of its own, it resumes from that.
        recipe: The settings that rebuild this trainer; saved in `run.json`.
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
        data_fingerprint: str = "",
        base_fingerprint: str = "",
        num_train_tokens: int | None = None,
        byte_counts: np.ndarray | None = None,
        sample: Callable[[], str] | None = None,
        score: Callable[[], dict[str, float]] | None = None,
        observers: Sequence[Observer] = (),
        branch_from: Path | None = None,
        recipe: Record | None = None,
    ) -> None:
        self.model, self.data, self.config = place_model(model, config, runtime), data, config
        self.runtime, self.branch_from = runtime, branch_from
        self.sample, self.score = sample, score
        self.byte_counts = None if byte_counts is None else torch.from_numpy(byte_counts)
        self.optimizer, loss = build_optimizer(model, config), compiled_loss(model, config, runtime)
        self.stepper = build_stepper(model, self.optimizer, loss, config, runtime)
        self.folder = RunFolder(
            run_dir,
            self.stepper,
            vocabulary=vocabulary,
            fingerprints={"data": data_fingerprint, "base model": base_fingerprint},
            recipe=recipe or {},
        )
        self.checkpoints, self.watchdog = self.folder.checkpoints, Watchdog()
        self.journal = Journal(
            run_dir / "history.jsonl",
            [*observers, self.watchdog],
            flops_per_token=training_flops_per_token(model.config, is_frozen=model.lora.rank > 0),
            runtime=runtime,
            decay=config.metrics_decay,
            num_train_tokens=num_train_tokens,
        )
        self.state, self._went_back_at = RunState(), 0

    @frees_memory
    def fit(self) -> TrainingSummary:
        """Train until `max_steps` or an interrupt; save in both cases.

        Raises:
            FloatingPointError: Loss or gradient were not finite for 5 steps in a row, and again
                after returning to the last checkpoint.
            OSError: The last checkpoint cannot be written; the one before it is intact.
            RuntimeError: Another trainer uses the folder, or this one stopped before a checkpoint.
            SystemExit: SIGTERM came; the checkpoint is written, the status is 143.
            ValueError: The folder holds a run of another model, vocabulary or data.
        """
        with contextlib.ExitStack() as stack:
            lead(lambda: stack.enter_context(lock_run(self.folder.path)), self.runtime)
            stack.callback(self.folder.writer.wait)
            self.state, changes = self.folder.resume(self.branch_from)
            self.journal.follow(self.state)
            interrupts = catch_interrupts(num_processes=self.runtime.num_processes)
            stop = stack.enter_context(interrupts)
            names = self.config.trackers if self.runtime.is_first else ()
            settings = to_dict(self.model.config) | to_dict(self.config)
            self.journal.trackers = stack.enter_context(
                open_trackers(names, self.folder.path, step=self.state.step, settings=settings)
            )
            trained = trained_share(self.model)
            self.journal.start(max_steps=self.config.max_steps, changes=changes, trained=trained)
            stack.enter_context(self.journal.recording_failure())
            stack.enter_context(self.runtime.matmul_precision())
            stack.enter_context(self.watchdog)
            if self.state.looked_around_at < self.state.step:
                self._look_around(stop)  # an interrupt prevented it
            while not (stop() or self._is_over()):
                self._take_steps(stop)
                if self._must_go_back():
                    self._go_back()
            self.folder.finish(self.state)
            reason = self.state.why_over(self.config) or signal.Signals(stop.signal or 0).name
            self.journal.emit("end", reason=reason)
        if stop.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        return self.summary()

    def summary(self) -> TrainingSummary:
        """Return the cost and the results of the run so far."""
        state = self.state
        return TrainingSummary(
            step=state.step,
            tokens=state.tokens,
            flops=state.tokens * self.journal.flops_per_token,
            seconds=self.journal.seconds,
            loss=state.averages.get("loss", math.nan),
            accuracy=state.averages.get("accuracy", math.nan),
            validation_loss=state.last_validation.get("loss"),
            validation_accuracy=state.last_validation.get("accuracy"),
            bits_per_byte=state.last_validation.get("bits_per_byte"),
            num_skipped=state.num_skipped,
            trained=trained_share(self.model),
            is_finished=self._is_over(),
        )

    def _take_steps(self, stop: Interrupt) -> None:
        """Take steps until the run is over, must stop, or must go back."""
        first, queued = self.state.step + 1, None

        def read(step: int) -> StepRows:
            return take_share(self.data.batches(step), self.runtime)

        with contextlib.closing(prefetch(read, first, self.config.max_steps + 1)) as steps:
            for step, rows in enumerate(steps, first):
                previous = queued
                stop.agree()
                queued = self.stepper.take(step, rows, should_stop=stop)
                if previous is not None:  # read while the device works on the next one
                    self._finish_step(previous)
                is_stopping = stop()
                # A step that is due for validation or a checkpoint must end before the next begins.
                waits = is_stopping or not self.runtime.is_asynchronous or self._due_after(step)
                if queued is not None and waits:
                    self._finish_step(queued)
                    queued = None
                    if not self._must_go_back():
                        self._look_around(stop)
                if is_stopping or self._must_go_back() or self._is_over():
                    return

    def _due_after(self, step: int) -> set[str]:
        """Return what must happen after a step: validation, checkpoint, sample."""
        intervals = {
            "validation": self.config.validation_interval,
            "checkpoint": self.config.checkpoint_interval,
        }
        if self.sample is not None:
            intervals["sample"] = self.config.sample_interval
        is_last = step == self.config.max_steps
        return {name for name, interval in intervals.items() if is_last or step % interval == 0}

    def _finish_step(self, pending: PendingStep) -> None:
        """Wait for a step, count it, and record it."""
        result, state = pending(), self.state
        self._last_result: StepResult = result
        state.step = result.step
        state.tokens += result.num_tokens
        state.num_skipped += result.verdict != Verdict.FINE
        is_bad = result.verdict == Verdict.NOT_FINITE
        state.num_bad_in_a_row = state.num_bad_in_a_row + 1 if is_bad else 0
        if not self._due_after(result.step):
            state.looked_around_at = result.step
        rows = self.stepper.num_rows
        if state.micro_batch_rows != rows:
            state.micro_batch_rows = rows
            self.journal.notice(f"memory ran out: {rows} rows at a time now, same rows per step")
        self.journal.record_step(result)

    def _look_around(self, should_stop: Callable[[], bool]) -> None:
        """Validate, sample and save if the newest step is due for it."""
        due, kinds = self._due_after(self.state.step), []
        if "validation" in due:
            measured = self._measure(should_stop)
            if not measured:
                return
            kinds += ["best"] if self._record_validation(measured) else []
        # All processes of a sharded model must take part in generating.
        if self.sample and "sample" in due and (self.runtime.is_first or self.folder.is_sharded):
            self.model.eval()
            self.journal.emit("sample", text=self.sample())
        self.state.looked_around_at = self.state.step
        # After non-finite steps, the checkpoint before them must stay the newest.
        if "checkpoint" in due and self.state.num_bad_in_a_row == 0:
            kinds += ["step"]
        if kinds:
            self.folder.save(self.state, *kinds)
        self.journal.restart_clock()

    def _measure(self, should_stop: Callable[[], bool]) -> dict[str, float]:
        """Measure held-out batches; return nothing if interrupted before the last one."""
        self.watchdog.rest()
        batches = list(self.data.validation_batches(self.config.validation_batches))
        share = share_of(batches, self.runtime)
        return self.stepper.measure(share, byte_counts=self.byte_counts, should_stop=should_stop)

    def _record_validation(self, measured: dict[str, float]) -> bool:
        """Record a validation; return whether its loss is among the `keep_best` lowest."""
        is_kept = self.state.add_validation(measured, keep=self.config.keep_best)
        scores = {"scores": self.score()} if self.score else {}
        self.journal.emit("validation", **measured, **scores)
        if self.state.is_out_of_patience(self.config.patience):
            num, best = self.state.num_validations_since_best, self.state.best_loss
            self.journal.notice(
                f"no validation loss under {best:.4f} in the last {num} validations: the run ends; "
                "the best weights are in checkpoints/best-*"
            )
        return is_kept

    def _is_over(self) -> bool:
        return self.state.why_over(self.config) is not None

    def _must_go_back(self) -> bool:
        return self.state.num_bad_in_a_row >= _MAX_BAD_IN_A_ROW

    def _go_back(self) -> None:
        """Return to the last checkpoint; give up if that has not helped before."""
        failed, result = self.state.step, self._last_result
        reason = (
            f"step {failed}: loss or gradient was not finite in the last {_MAX_BAD_IN_A_ROW} steps "
            f"(loss {result.loss}, norm {result.grad_norm}, learning rate "
            f"{result.learning_rate:.3g})"
        )
        is_same_place = failed - _MAX_BAD_IN_A_ROW < self._went_back_at
        state = None if is_same_place else self.folder.go_back()
        if state is None:
            raise FloatingPointError(
                f"{reason}, {'again' if is_same_place else 'and there is no checkpoint yet'}: "
                "lower learning_rate or raise warmup_steps, and run again"
            )
        self._went_back_at = failed
        state.num_bad_in_a_row = 0
        self.state = state
        self.journal.follow(state)
        self.journal.notice(f"{reason}: back to the checkpoint of step {state.step}")
