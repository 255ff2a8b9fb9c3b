"""Loss, accuracy and bits per byte over held-out batches."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from dimgpt.data.reading.batch import Batch
from dimgpt.runtime import Runtime
from dimgpt.training.distributed import add_up
from dimgpt.training.loss import LossSums


@torch.no_grad()
def validate(
    loss_sums: Callable[[Batch], LossSums],
    batches: Iterable[Batch],
    *,
    runtime: Runtime,
    byte_counts: Tensor | None,
    should_stop: Callable[[], bool],
) -> dict[str, float]:
    """Return `loss` (nats a token), `accuracy` (0..1) and, given byte counts, `bits_per_byte`.

    Args:
        loss_sums: Sums over a batch on the device, of a model in evaluation mode.
        batches: The share of this process; tokens of weight 0 are not counted.
        runtime: Device and precision.
        byte_counts: UTF-8 bytes that each token stands for, (V,), on the CPU.
        should_stop: Asked before each batch; a validation that is cut short returns nothing.
    """
    sums = torch.zeros(2, device=runtime.device)
    weight, num_bytes = 0.0, 0.0
    for batch in batches:
        if should_stop():
            return {}
        with runtime.autocast():
            sums += torch.stack(loss_sums(batch.to(runtime.device)))
        weight += float(batch.weights.sum())
        if byte_counts is not None:
            num_bytes += float((byte_counts[batch.targets] * batch.weights).sum())
    loss, correct = add_up(sums, runtime).tolist()
    counts = torch.tensor([weight, num_bytes], dtype=torch.float64)
    weight, num_bytes = add_up(counts, runtime).tolist()
    measured = {"loss": loss / max(weight, 1e-8), "accuracy": correct / max(weight, 1e-8)}
    if num_bytes > 0:
        measured["bits_per_byte"] = loss / math.log(2) / num_bytes
    return measured
