"""Loss, accuracy and bits per byte over held-out batches."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from dimgpt.data.batch import Batch
from dimgpt.runtime import Runtime
from dimgpt.training.loss import weighted_cross_entropy


@torch.no_grad()
def validate(
    forward: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    *,
    runtime: Runtime,
    byte_counts: Tensor | None,
) -> dict[str, float]:
    """Return `loss` (nats a token), `accuracy` (0..1) and, given byte counts, `bits_per_byte`.

    Args:
        forward: Model in evaluation mode, (B, T) -> (B, T, V).
        batches: Tokens of weight 0 count nowhere.
        runtime: Device and precision.
        byte_counts: UTF-8 bytes that each token stands for, (V,), on the CPU.
    """
    sums = torch.zeros(2, device=runtime.device)
    weight, num_bytes = 0.0, 0.0
    for batch in batches:
        with runtime.autocast():
            logits = forward(batch.inputs.to(runtime.device))
        targets, weights = batch.targets.to(runtime.device), batch.weights.to(runtime.device)
        sums += torch.stack(weighted_cross_entropy(logits, targets, weights))
        weight += float(batch.weights.sum())
        if byte_counts is not None:
            num_bytes += float((byte_counts[batch.targets] * batch.weights).sum())
    loss, correct = sums.tolist()
    measured = {"loss": loss / max(weight, 1e-8), "accuracy": correct / max(weight, 1e-8)}
    if num_bytes > 0:
        measured["bits_per_byte"] = loss / math.log(2) / num_bytes
    return measured
