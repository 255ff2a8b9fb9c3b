"""One optimizer step: the gradient of all micro-batches, the verdict on it, the update.

The host only queues work for the device here and never waits for it: the verdict reaches the
optimizer as a tensor, and the measured values are read by whoever wants them, later. When a step is
due, and what follows from its values, is the trainer's matter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dimgpt.config import TrainingConfig
from dimgpt.data.reading.batch import Batch
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime
from dimgpt.training.distributed import build_gradient
from dimgpt.training.guard import UpdateGuard, Verdict
from dimgpt.training.loss import LossSums
from dimgpt.training.loss_scaler import LossScaler
from dimgpt.training.micro_batches import MicroBatches
from dimgpt.training.optimizer import set_learning_rates
from dimgpt.training.processes import Processes
from dimgpt.training.share import StepRows


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What one step measured."""

    step: int
    num_tokens: int
    learning_rate: float
    loss: float
    """Weighted mean, in nats a token."""
    accuracy: float
    grad_norm: float
    """Before it was scaled down."""
    verdict: Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingStep:
    """A step that is queued on the device; `read` waits for it."""

    step: int
    num_tokens: int
    learning_rate: float
    values: Tensor
    """Loss, accuracy, norm, verdict: on their way to the host."""
    event: torch.cuda.Event | None
    """Says when they have arrived; `None` where they already have."""

    def read(self) -> StepResult:
        """Wait until the device has taken the step, and return what it measured."""
        if self.event is not None:
            self.event.synchronize()
        loss, accuracy, norm, verdict = self.values.tolist()
        return StepResult(
            step=self.step,
            num_tokens=self.num_tokens,
            learning_rate=self.learning_rate,
            loss=loss,
            accuracy=accuracy,
            grad_norm=norm,
            verdict=Verdict(int(verdict)),
        )


class Stepper:
    """Takes the optimizer steps of a run.

    Args:
        model: Trained in place.
        optimizer: Honours `found_inf`; see `optimizer.py`.
        loss_sums: From a batch on the device to its sums.
        config: The run.
        runtime: Device and precision.
    """

    def __init__(
        self,
        model: Transformer,
        optimizer: torch.optim.Optimizer,
        loss_sums: Callable[[Batch], LossSums],
        config: TrainingConfig,
        *,
        runtime: Runtime,
    ) -> None:
        self.model, self.optimizer, self.loss_sums = model, optimizer, loss_sums
        self.config, self.runtime = config, runtime
        self.processes = Processes(runtime)
        self.gradient = build_gradient(model, self._loss_sums, config, runtime)
        self.micro_batches = MicroBatches(may_halve=not self.gradient.is_sharded)
        self.guard = UpdateGuard(runtime.device, skip_spikes=config.skip_spikes)
        self.scaler = LossScaler(runtime.device, is_enabled=runtime.needs_loss_scaling)

    def _loss_sums(self, batch: Batch) -> LossSums:
        return self.loss_sums(batch)  # looked up now: it can be replaced in one place

    def take(
        self, step: int, rows: StepRows, *, should_stop: Callable[[], bool]
    ) -> PendingStep | None:
        """Queue a step, or return `None` if it is to stop before the gradient is complete.

        A step that was stopped, or whose update is left out, leaves weights and moments as they
        were, bit for bit.
        """
        learning_rate = set_learning_rates(self.optimizer, step, self.config)

        def compute(pieces: list[Batch]) -> Tensor | None:
            return self._gradient(step, pieces, weight=rows.weight, should_stop=should_stop)

        means = self.micro_batches.run(compute, rows.batches)
        if means is None:
            return None
        self.gradient.complete()
        means = self.processes.add_up(means)
        norm, verdict = self._update(means[0])
        values = torch.cat((means, torch.stack((norm, verdict.float()))))
        return PendingStep(
            step=step,
            num_tokens=rows.num_tokens,
            learning_rate=learning_rate,
            # Only CUDA has an event that says when the values are there.
            values=values.to("cpu", non_blocking=self.runtime.is_asynchronous),
            event=self._mark(),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps besides weights and moments."""
        return self.guard.tensors() | self.scaler.tensors()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` returned."""
        self.guard.restore(tensors)
        self.scaler.restore(tensors)

    def _gradient(
        self,
        step: int,
        pieces: Sequence[Batch],
        *,
        weight: float,
        should_stop: Callable[[], bool],
    ) -> Tensor | None:
        """Add up the gradients; return this process's part of loss and accuracy, float32 (2,)."""
        self.optimizer.zero_grad(set_to_none=True)
        # Dropout, too, depends on the step alone; each process leaves out others.
        torch.manual_seed(self.config.seed + step + (self.runtime.rank << 32))
        self.model.train()
        sums = torch.zeros(2, device=self.runtime.device)
        scale = self.scaler.scale * self.gradient.num_means
        for number, piece in enumerate(pieces, 1):
            if should_stop():
                self.optimizer.zero_grad(set_to_none=True)
                return None
            with self.gradient.piece(is_last=number == len(pieces)):
                with self.runtime.autocast():
                    loss, correct = self.gradient.loss_sums(piece.to(self.runtime.device))
                (loss * scale / weight).backward()
            sums += torch.stack((loss.detach(), correct))
        return sums / weight

    def _update(self, loss: Tensor) -> tuple[Tensor, Tensor]:
        """Clip and apply the gradient unless the verdict is against it; return norm and verdict."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        if self.scaler.is_enabled:
            for parameter in parameters:
                parameter.grad.div_(self.scaler.scale)  # type: ignore[union-attr]
        norm = self.gradient.clip(parameters, self.config.max_grad_norm)
        verdict = self.guard.judge(loss, norm)
        if self.scaler.is_enabled:
            is_overflow = loss.isfinite() & ~norm.isfinite() & (self.scaler.scale > 1)
            verdict = torch.where(is_overflow, Verdict.OVERFLOW, verdict)
            self.scaler.update(is_overflow)
        self.optimizer.found_inf = (verdict != Verdict.FINE).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm, verdict

    def _mark(self) -> torch.cuda.Event | None:
        if self.runtime.device.type != "cuda":
            return None
        event = torch.cuda.Event()
        event.record()
        return event
