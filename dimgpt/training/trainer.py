"""The trainer: what happens when, from the first step to the last.

It is given a model, batches that are a pure function of the step, and a folder. It knows no text
and no plot: who wants to watch passes observers, who wants samples passes a function that makes
one. Running it again in the same folder goes on where the last checkpoint ends. How a step is taken
is in `step.py`, how it is written down in `journal.py`.
"""

import contextlib
import functools
import math
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from dimgpt.config import TrainingConfig
from dimgpt.data.reading.batch import prefetch
from dimgpt.model.flops import training_flops_per_token
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime
from dimgpt.training.checkpoint import CheckpointStore
from dimgpt.training.data import TrainingData
from dimgpt.training.distributed import place_model
from dimgpt.training.guard import Verdict
from dimgpt.training.journal import Journal, Observer, Record
from dimgpt.training.loss import compiled_loss
from dimgpt.training.metrics import History
from dimgpt.training.optimizer import build_optimizer
from dimgpt.training.processes import AgreedStop
from dimgpt.training.run_folder import RunFolder
from dimgpt.training.run_lock import lock_run
from dimgpt.training.run_state import RunState
from dimgpt.training.share import StepRows, share_of, take_share
from dimgpt.training.step import PendingStep, Stepper
from dimgpt.training.summary import TrainingSummary
from dimgpt.training.validation import validate

# Steps in a row without a finite gradient after which the run goes back to its last checkpoint.
_MAX_BAD_IN_A_ROW = 5


class Trainer:
    """One run of one model in one folder.

    Args:
        model: Trained in place, on the runtime's device.
        data: Its batches.
        config: The run.
        run_dir: Gets `history.jsonl` and `checkpoints/`.
        runtime: Device and precision.
        vocabulary: Fingerprint of the vocabulary; a run resumes only with the same one.
        data_fingerprint: Of what the batches are drawn from; likewise.
        base_fingerprint: Of the weights that the model begins with; likewise.
        byte_counts: UTF-8 bytes that each token stands for, (vocab_size,); gives bits per byte.
        sample: Makes the text that is kept every `sample_interval` steps.
        observers: Called with every record that goes to the history.
        branch_from: A checkpoint, or the folder of a run, from which a new run begins with all its
            state; its data may be others. Once this run has a checkpoint of its own, it goes on
            from that.
        recipe: What it takes to build this trainer again; kept in `run.json`.
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
        byte_counts: np.ndarray | None = None,
        sample: Callable[[], str] | None = None,
        observers: Sequence[Observer] = (),
        branch_from: Path | None = None,
        recipe: Record | None = None,
    ) -> None:
        self.model, self.data, self.config = place_model(model, config, runtime), data, config
        self.runtime, self.sample, self.branch_from = runtime, sample, branch_from
        self.byte_counts = None if byte_counts is None else torch.from_numpy(byte_counts)
        self.optimizer, loss = build_optimizer(model, config), compiled_loss(model, config, runtime)
        self.stepper = Stepper(model, self.optimizer, loss, config, runtime=runtime)
        self.processes = self.stepper.processes
        self.folder = RunFolder(
            run_dir,
            model=model,
            stepper=self.stepper,
            config=config,
            vocabulary=vocabulary,
            fingerprints={"data": data_fingerprint, "base model": base_fingerprint},
            recipe=recipe or {},
        )
        self.journal = Journal(
            self.folder.history,
            observers,
            flops_per_token=training_flops_per_token(model.config),
            runtime=runtime,
            decay=config.metrics_decay,
        )
        self.state, self._went_back_at = RunState(), 0

    @property
    def checkpoints(self) -> CheckpointStore:
        """What the run goes on from."""
        return self.folder.checkpoints

    @property
    def history(self) -> History:
        """What the run has written down."""
        return self.folder.history

    def fit(self) -> TrainingSummary:
        """Train until `max_steps`, or until interrupted; save either way.

        Raises:
            FloatingPointError: Loss or gradient are not finite for 5 steps in a row, and are so
                again after going back to the last checkpoint.
            OSError: The last checkpoint cannot be written; the one before it is whole.
            RuntimeError: Another trainer is at work in the folder.
            SystemExit: SIGTERM came; the checkpoint is written, the status is 143.
            ValueError: The folder holds a run of another model, vocabulary or data.
        """
        with contextlib.ExitStack() as stack:
            self.processes.lead(lambda: stack.enter_context(lock_run(self.folder.path)))
            stack.callback(self.folder.writer.wait)
            state, changes = self.folder.resume(self.branch_from)
            self._follow(state)
            stop = stack.enter_context(self.processes.catch_interrupts())
            self.journal.trackers = stack.enter_context(self.folder.open_trackers(state.step))
            self.journal.start(max_steps=self.config.max_steps, changes=changes)
            stack.enter_context(self.runtime.matmul_precision())
            self._train(stop)
            self.folder.finish(self.state)
        if stop.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        return self.summary()

    def summary(self) -> TrainingSummary:
        """Return what the run took and reached so far."""
        state = self.state
        return TrainingSummary(
            step=state.step,
            tokens=state.tokens,
            flops=state.tokens * training_flops_per_token(self.model.config),
            seconds=self.journal.stopwatch.seconds,
            loss=state.averages.get("loss", math.nan),
            accuracy=state.averages.get("accuracy", math.nan),
            validation_loss=state.last_validation.get("loss"),
            validation_accuracy=state.last_validation.get("accuracy"),
            bits_per_byte=state.last_validation.get("bits_per_byte"),
            num_skipped=state.num_skipped,
            is_finished=self._is_over(),
        )

    def _train(self, should_stop: AgreedStop) -> None:
        if self.state.looked_around_at < self.state.step:
            self._look_around(should_stop)  # a stop had come in between
        while not (should_stop() or self._is_over()):
            self._take_steps(should_stop)
            if self._must_go_back():
                self._go_back()

    def _follow(self, state: RunState) -> None:
        self.state = state
        self.journal.follow(state)

    def _take_steps(self, should_stop: AgreedStop) -> None:
        """Take steps until the run is over, is to stop, or must go back."""
        first, queued = self.state.step + 1, None

        def read(step: int) -> StepRows:
            return take_share(self.data.batches(step), self.runtime)

        with contextlib.closing(prefetch(read, first, self.config.max_steps + 1)) as steps:
            for step, rows in enumerate(steps, first):
                previous = queued
                should_stop.agree()
                queued = self.stepper.take(step, rows, should_stop=should_stop)
                if previous is not None:  # read while the device works on the next one
                    self._finish_step(previous)
                is_stopping = should_stop()
                if queued is not None and (self._waits_after(step) or is_stopping):
                    self._finish_step(queued)
                    queued = None
                    if not self._must_go_back():
                        self._look_around(should_stop)
                if is_stopping or self._must_go_back() or self._is_over():
                    return

    def _waits_after(self, step: int) -> bool:
        """Say whether the values of a step are needed before the next one can begin."""
        return not self.runtime.is_asynchronous or any(self._due_after(step).values())

    def _due_after(self, step: int) -> dict[str, bool]:
        is_last = step == self.config.max_steps
        return {
            "validation": is_last or step % self.config.validation_interval == 0,
            "sample": bool(self.sample) and (is_last or step % self.config.sample_interval == 0),
            "checkpoint": is_last or step % self.config.checkpoint_interval == 0,
        }

    def _finish_step(self, pending: PendingStep) -> None:
        """Wait for a step, count it, and write it down."""
        result, state = pending.read(), self.state
        self._last_result = result
        state.step = result.step
        state.tokens += result.num_tokens
        state.num_skipped += result.verdict != Verdict.FINE
        is_bad = result.verdict == Verdict.NOT_FINITE
        state.num_bad_in_a_row = state.num_bad_in_a_row + 1 if is_bad else 0
        if not any(self._due_after(result.step).values()):
            state.looked_around_at = result.step
        rows = self.stepper.micro_batches.num_rows
        if state.micro_batch_rows != rows:
            state.micro_batch_rows = rows
            self.journal.notice(f"memory ran out: {rows} rows at a time now, as many a step")
        self.journal.record_step(result)

    def _look_around(self, should_stop: Callable[[], bool]) -> None:
        """Validate, sample and save where the newest step is due for it, and at the end."""
        due, kinds = self._due_after(self.state.step), []
        if due["validation"]:
            is_best = self._validate(should_stop)
            if is_best is None:
                return
            kinds += ["best"] if is_best else []
        is_writing = self.runtime.is_first or self.stepper.gradient.is_sharded
        if self.sample and due["sample"] and is_writing:
            self.model.eval()
            self.journal.emit("sample", text=self.sample())
        self.state.looked_around_at = self.state.step
        # What began before a streak of bad steps is what to go back to.
        if due["checkpoint"] and self.state.num_bad_in_a_row == 0:
            kinds += ["step"]
        if kinds:
            self.folder.save(self.state, *kinds)
        self.journal.start_timing()

    def _validate(self, should_stop: Callable[[], bool]) -> bool | None:
        """Return whether no validation was better before; `None` if it was cut short."""
        measured = self._measure(should_stop)
        if not measured:
            return None
        is_best = self.state.take_note_of(measured)
        self.journal.emit("validation", **measured)
        if self.state.has_lost(self.config.patience):
            num, best = self.state.num_validations_since_best, self.state.best_loss
            self.journal.notice(
                f"no validation loss under {best:.4f} in the last {num} validations: the run ends "
                "(the best weights: checkpoints/best-*)"
            )
        return is_best

    def _measure(self, should_stop: Callable[[], bool]) -> dict[str, float]:
        """Measure held-out batches; nothing if it is to stop before the last one."""
        self.model.eval()
        measure = functools.partial(
            validate,
            self.stepper.loss_sums,
            processes=self.processes,
            byte_counts=self.byte_counts,
            should_stop=should_stop,
        )
        batches = list(self.data.validation_batches(self.config.validation_batches))
        return self.stepper.micro_batches.run(measure, share_of(batches, self.runtime))

    def _is_over(self) -> bool:
        is_last = self.state.step >= self.config.max_steps
        return is_last or self.state.has_lost(self.config.patience)

    def _must_go_back(self) -> bool:
        return self.state.num_bad_in_a_row >= _MAX_BAD_IN_A_ROW

    def _go_back(self) -> None:
        """Put the run back to its last checkpoint; give up where that has not helped before."""
        failed, result = self.state.step, self._last_result
        reason = (
            f"step {failed}: loss and gradient are not finite for the {_MAX_BAD_IN_A_ROW}th time "
            f"in a row (loss {result.loss}, norm {result.grad_norm}, learning rate "
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
        self._follow(state)
        self.journal.notice(f"{reason}: back to the checkpoint of step {state.step}")
