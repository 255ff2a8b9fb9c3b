"""Loss, accuracy, perplexity and bits per byte over whole documents.

Every token of every document counts once. A document longer than the context is read in windows
that overlap by half, so that a token has at least half a context before it, if its document has.

Bits per byte compare models of different vocabularies. The bytes are those of the cleaned text:
cleaning shortens the raw one, so raw bytes would flatter.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from dimgpt.data.token_file import TokenFile
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Perplexity:
    """What a model makes of a file of documents."""

    documents: int
    tokens: int
    """Predicted tokens: all but the first of each document."""
    loss: float
    """Nats per token."""
    accuracy: float
    """Share of the tokens that the model finds most probable, in 0..1."""
    perplexity: float
    """exp(loss)."""
    bits_per_byte: float
    """Per UTF-8 byte of cleaned text."""


@torch.inference_mode()
def measure_perplexity(
    model: Transformer,
    file: TokenFile,
    *,
    byte_counts: Array,
    runtime: Runtime,
    batch_size: int = 32,
) -> Perplexity:
    """Read a token file from its first document to its last.

    Args:
        model: On the runtime's device, in evaluation mode.
        file: Documents, each from ⮜start-of-text⮞ to ⮜end-of-text⮞.
        byte_counts: UTF-8 bytes that each token stands for, (vocab_size,).
        runtime: Device and precision.
        batch_size: Windows per forward pass.
    """
    windows = list(_windows(file, model.config.context_length))
    windows.sort(key=lambda window: len(window[0]))  # alike lengths together: little padding
    loss, correct, num_tokens, num_bytes = 0.0, 0, 0, 0
    for first in range(0, len(windows), batch_size):
        ids, is_counted = _pad(windows[first : first + batch_size])
        targets, mask = ids[:, 1:].to(runtime.device), is_counted[:, 1:].to(runtime.device)
        with runtime.autocast():
            logits = model(ids[:, :-1].to(runtime.device))
        losses = F.cross_entropy(logits[mask].float(), targets[mask], reduction="none")
        loss += losses.double().sum().item()
        correct += int((logits[mask].argmax(dim=-1) == targets[mask]).sum())
        num_tokens += int(mask.sum())
        num_bytes += int(byte_counts[ids[:, 1:][is_counted[:, 1:]].numpy()].sum())
    return Perplexity(
        documents=file.num_documents,
        tokens=num_tokens,
        loss=loss / num_tokens,
        accuracy=correct / num_tokens,
        perplexity=math.exp(loss / num_tokens),
        bits_per_byte=loss / math.log(2) / num_bytes,
    )


def _windows(file: TokenFile, context_length: int) -> Iterator[tuple[Array, int]]:
    """Yield pieces of at most context_length + 1 ids, and the first index that counts in each."""
    stride = context_length // 2
    for number in range(file.num_documents):
        ids = np.asarray(file.document(number)).astype(np.int64)
        first, num_counted = 0, 1  # nothing predicts the first token
        while num_counted < len(ids):
            window = ids[first : first + context_length + 1]
            yield window, num_counted - first
            num_counted = first + len(window)
            first = num_counted - 1 - (context_length - stride)


def _pad(windows: list[tuple[Array, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack windows, (N, longest), with the mask of the ids that count."""
    longest = max(len(window) for window, _ in windows)
    ids = torch.zeros(len(windows), longest, dtype=torch.int64)
    mask = torch.zeros(len(windows), longest, dtype=torch.bool)
    for row, (window, first) in enumerate(windows):
        ids[row, : len(window)] = torch.from_numpy(window)
        mask[row, first : len(window)] = True
    return ids, mask
