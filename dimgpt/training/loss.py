"""The loss of a batch, as sums: who adds up several batches divides at the end."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dimgpt.config import TrainingConfig
from dimgpt.data.batch import Batch
from dimgpt.model.flash_version import activate_newest_flash_attention
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime, available_memory

_BYTES_PER_LOGIT = 2 + 2 + 4
_MAX_CHUNKS = 32


class LossSums(NamedTuple):
    """Sums over the tokens of a batch, scalars on the device."""

    loss: Tensor
    """Weighted cross-entropy, in nats."""
    correct: Tensor
    """Weight of the tokens that the model finds most probable."""


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> LossSums:
    """Compare logits (B, T, V) with targets (B, T), int64, under weights (B, T), float32."""
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    with torch.no_grad():
        correct = ((logits.argmax(dim=-1) == targets) * weights).sum()
    return LossSums((losses * weights.flatten()).sum(), correct)


def chunked_cross_entropy(
    model: Transformer, hidden: Tensor, targets: Tensor, weights: Tensor, *, num_chunks: int
) -> LossSums:
    """Compute the same from hidden states (B, T, C), a share of the logits at a time.

    The backward pass computes the logits of each chunk again, so that no more than those of one
    chunk are ever in memory: a twentieth more of a step's work at DimensionGPT's size.
    """

    def sums(hidden: Tensor, targets: Tensor, weights: Tensor) -> LossSums:
        return weighted_cross_entropy(model.logits(hidden), targets, weights)

    rows = [x.flatten(0, 1)[None] for x in (hidden, targets, weights)]
    chunks = zip(*(x.tensor_split(num_chunks, dim=1) for x in rows), strict=True)
    parts = [
        checkpoint(sums, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks
    ]
    loss, correct = (torch.stack(values).sum() for values in zip(*parts, strict=True))
    return LossSums(loss, correct)


def choose_loss_chunks(*, num_tokens: int, vocab_size: int, free_bytes: int) -> int:
    """Return into how many chunks the logits of a micro-batch are cut: 1 where memory is plenty.

    Logits and their gradient, in half precision and once in float32, should not take more than a
    quarter of the memory; if they would, each chunk takes a sixteenth.
    """
    num_bytes = num_tokens * vocab_size * _BYTES_PER_LOGIT
    if num_bytes <= free_bytes / 4:
        return 1
    return min(math.ceil(16 * num_bytes / max(free_bytes, 1)), _MAX_CHUNKS)


def compiled_loss(
    model: Transformer, config: TrainingConfig, runtime: Runtime
) -> Callable[[Batch], LossSums]:
    """Return the function from a batch on the device to its loss, compiled if the config says so.

    The loss is compiled together with the model: its passes over (B, T, V) then become one.
    """
    num_chunks = config.loss_chunks or choose_loss_chunks(
        num_tokens=config.batch_size * model.config.context_length,
        vocab_size=model.config.vocab_size,
        free_bytes=available_memory(runtime),
    )

    def sums(inputs: Tensor, targets: Tensor, weights: Tensor) -> LossSums:
        hidden = model.hidden_states(inputs)
        if num_chunks == 1:
            return weighted_cross_entropy(model.logits(hidden), targets, weights)
        return chunked_cross_entropy(model, hidden, targets, weights, num_chunks=num_chunks)

    activate_newest_flash_attention(runtime.device)
    use_compile = config.use_compile
    if use_compile is None:
        use_compile = runtime.device.type == "cuda"
    compute = torch.compile(sums, dynamic=False, fullgraph=True) if use_compile else sums
    return lambda batch: compute(batch.inputs, batch.targets, batch.weights)
