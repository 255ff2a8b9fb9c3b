"""One optimizer step, and one validation.

Queues the step without synchronising with the device: the decision to skip the update stays on the
device, and the measured values are read later. With several processes, losses are added up here
and `distributed.py` or `sharding.py` exchanges the gradients.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dimgpt.config import TrainingConfig
from dimgpt.data.reading.batch import Batch
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime
from dimgpt.training.guard import UpdateGuard, Verdict
from dimgpt.training.loss import LossSums
from dimgpt.training.micro_batches import StepRows, cut, is_out_of_memory
from dimgpt.training.optimizer import set_learning_rates
from dimgpt.training.sharding import is_sharded

T = TypeVar("T")


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
    """Before clipping."""
    verdict: Verdict


PendingStep = Callable[[], StepResult]
"""A step that is queued on the device; calling it waits for the step and returns its values."""


class Stepper:
    """Takes the optimizer steps of a run, and measures held-out batches.

    `optimizer` must honour `found_inf` (see `optimizer.py`). `loss_sums` returns the loss of a
    batch on the device.
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
        self.is_sharded = is_sharded(config, runtime)
        self.num_rows: int | None = None
        """Rows per forward pass after memory ran out; `None` keeps the micro-batches."""
        self.guard = UpdateGuard(
            runtime.device, skip_spikes=config.skip_spikes, scales_loss=runtime.needs_loss_scaling
        )

    def take(
        self, step: int, rows: StepRows, *, should_stop: Callable[[], bool]
    ) -> PendingStep | None:
        """Queue a step; return `None` if `should_stop` says so before the gradient is complete.

        A stopped step and a skipped update leave weights and moments unchanged, bit for bit.
        """
        learning_rate = set_learning_rates(self.optimizer, step, self.config)

        def accumulate(pieces: list[Batch]) -> Tensor | None:
            return self._gradient(step, pieces, weight=rows.weight, should_stop=should_stop)

        means = self._in_pieces(accumulate, rows.batches)
        if means is None:
            return None
        device = self.runtime.device
        # Only CUDA has an event that says when the values have arrived.
        values = self._update(means).to("cpu", non_blocking=self.runtime.is_asynchronous)
        is_cuda = device.type == "cuda"
        arrived = torch.cuda.current_stream(device).record_event() if is_cuda else None

        def read() -> StepResult:
            if arrived is not None:
                arrived.synchronize()
            loss, accuracy, norm, verdict = values.tolist()
            return StepResult(
                step=step,
                num_tokens=rows.num_tokens,
                learning_rate=learning_rate,
                loss=loss,
                accuracy=accuracy,
                grad_norm=norm,
                verdict=Verdict(int(verdict)),
            )

        return read

    @torch.no_grad()
    def measure(
        self,
        batches: Sequence[Batch],
        *,
        byte_counts: Tensor | None,
        should_stop: Callable[[], bool],
    ) -> dict[str, float]:
        """Return `loss` (nats a token), `accuracy` (0..1) and, given byte counts, `bits_per_byte`.

        Args:
            batches: The share of this process; tokens of weight 0 are not counted.
            byte_counts: UTF-8 bytes that each token stands for, (V,), on the CPU.
            should_stop: Called before each batch; if it returns true, the result is empty.
        """
        self.model.eval()

        def add(pieces: list[Batch]) -> tuple[Tensor, Tensor] | None:
            sums = torch.zeros(2, device=self.runtime.device)
            counts = torch.zeros(2, dtype=torch.float64)  # weight and bytes
            for batch in pieces:
                if should_stop():
                    return None
                with self.runtime.autocast():
                    sums += torch.stack(self.loss_sums(batch.to(self.runtime.device)))
                counts[0] += float(batch.weights.sum())
                if byte_counts is not None:
                    counts[1] += float((byte_counts[batch.targets] * batch.weights).sum())
            return sums, counts

        added = self._in_pieces(add, batches)
        if added is None:
            return {}
        (loss, correct), (weight, num_bytes) = (self._add_up(sums).tolist() for sums in added)
        measured = {"loss": loss / max(weight, 1e-8), "accuracy": correct / max(weight, 1e-8)}
        if num_bytes > 0:
            measured["bits_per_byte"] = loss / math.log(2) / num_bytes
        return measured

    def _in_pieces(self, work: Callable[[list[Batch]], T], batches: Sequence[Batch]) -> T:
        """Call `work` on the batches; when memory runs out, call it again with half the rows.

        Args:
            work: Must undo what it has done when it fails.
            batches: `work` gets their rows in the same order.

        Raises:
            torch.OutOfMemoryError: A single row is too much.
        """
        while True:
            pieces = cut(batches, self.num_rows)
            try:
                return work(pieces)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.is_sharded:  # the other processes wait for each micro-batch
                    raise RuntimeError(
                        "memory ran out, and a sharded model cannot halve its micro-batches during "
                        "a step: lower batch_size, raise accumulation_steps, and run again"
                    ) from None
            # Outside the handler, the error and the tensors of its traceback have been freed.
            torch.cuda.empty_cache()
            largest = max(len(piece.inputs) for piece in pieces)
            if largest == 1:
                raise torch.OutOfMemoryError(
                    "memory ran out with a single row at a time: free some memory, or use a "
                    "smaller model or context_length"
                )
            self.num_rows = (largest + 1) // 2

    def _gradient(
        self,
        step: int,
        pieces: Sequence[Batch],
        *,
        weight: float,
        should_stop: Callable[[], bool],
    ) -> Tensor | None:
        """Accumulate the gradient; return this process's part of loss and accuracy, (2,)."""
        self.optimizer.zero_grad(set_to_none=True)
        # Dropout depends on the step and the process only.
        torch.manual_seed(self.config.seed + step + (self.runtime.rank << 32))
        self.model.train()
        sums = torch.zeros(2, device=self.runtime.device)
        for number, piece in enumerate(pieces, 1):
            if should_stop():
                self.optimizer.zero_grad(set_to_none=True)
                return None
            sums += self._backward(piece, weight=weight, is_last=number == len(pieces))
        return sums / weight

    def _backward(self, piece: Batch, *, weight: float, is_last: bool) -> Tensor:
        """Run one micro-batch forward and backward; return its sums of loss and accuracy."""
        with self.runtime.autocast():
            loss, correct = self.loss_sums(piece.to(self.runtime.device))
        # The exchange averages the processes' gradients; the factor turns the mean into the sum.
        (loss * (self.guard.scale * self.runtime.num_processes) / weight).backward()
        return torch.stack((loss.detach(), correct))

    def _update(self, means: Tensor) -> Tensor:
        """Clip, judge and apply the gradient; return loss, accuracy, norm and verdict, (4,)."""
        means = self._add_up(means)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        if self.guard.scales_loss:
            for parameter in parameters:
                parameter.grad.div_(self.guard.scale)  # type: ignore[union-attr]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm)
        if self.is_sharded:
            norm = norm.full_tensor()  # type: ignore[attr-defined]
        verdict = self.guard.judge(means[0], norm)
        self.optimizer.found_inf = (verdict != Verdict.FINE).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return torch.cat((means, torch.stack((norm, verdict.float()))))

    def _add_up(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes; it may be changed in place."""
        if self.runtime.num_processes > 1:
            dist.all_reduce(tensor)
        return tensor
