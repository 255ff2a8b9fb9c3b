"""How well a model predicts text: scores of whole files.

Every token of every document counts once. A document longer than the context is read
in windows that overlap by half, so that a token has at least half a context before it, if its
document has. Bits per byte compare models of different vocabularies; the bytes are those of the
cleaned text, since cleaning shortens the raw one and raw bytes would flatter.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

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

    Raises:
        ValueError: No document has a second token, so there is nothing to predict.
    """
    windows = list(_windows(file, model.config.context_length))
    if not windows:
        raise ValueError(
            f"{file.num_documents} documents hold no token to predict: give a file with text"
        )
    windows.sort(key=lambda window: len(window[0]))  # alike lengths together: little padding
    sums = np.zeros(4)
    for first in range(0, len(windows), batch_size):
        sums += _score(model, windows[first : first + batch_size], byte_counts, runtime)
    loss, correct, num_tokens, num_bytes = sums.tolist()
    return Perplexity(
        documents=file.num_documents,
        tokens=int(num_tokens),
        loss=loss / num_tokens,
        accuracy=correct / num_tokens,
        perplexity=math.exp(loss / num_tokens),
        bits_per_byte=loss / math.log(2) / num_bytes if num_bytes else math.nan,
    )


def _score(
    model: Transformer, windows: list[tuple[Array, int]], byte_counts: Array, runtime: Runtime
) -> Array:
    """Return the sums over the tokens that count: nats, right guesses, tokens, bytes."""
    ids = pad_sequence([torch.from_numpy(window) for window, _ in windows], batch_first=True)
    bounds = torch.tensor([(first, len(window)) for window, first in windows])
    places = torch.arange(1, ids.shape[1])
    mask = ((places >= bounds[:, :1]) & (places < bounds[:, 1:])).to(runtime.device)
    targets = ids[:, 1:].to(runtime.device)
    with runtime.autocast():
        logits = model(ids[:, :-1].to(runtime.device))
    scores, expected = logits[mask].float(), targets[mask]
    losses = F.cross_entropy(scores, expected, reduction="none")
    loss = losses.cpu().double().sum().item()  # Apple's GPU has no float64
    correct = int((scores.argmax(dim=-1) == expected).sum())
    num_bytes = int(byte_counts[expected.cpu().numpy()].sum())
    return np.array([loss, correct, len(expected), num_bytes])


def _windows(file: TokenFile, context_length: int) -> Iterator[tuple[Array, int]]:
    """Yield pieces of at most context_length + 1 ids, and the first index that counts in each."""
    stride = max(1, context_length // 2)
    for number in range(file.num_documents):
        ids = np.asarray(file.document(number)).astype(np.int64)
        first, num_counted = 0, 1  # nothing predicts the first token
        while num_counted < len(ids):
            window = ids[first : first + context_length + 1]
            yield window, num_counted - first
            num_counted = first + len(window)
            first = num_counted - 1 - (context_length - stride)
