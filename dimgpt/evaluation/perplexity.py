"""Measures how well a model predicts token files.

Every token of every document counts once. A document longer than the context is read in windows
that overlap by half, so that every token has at least half a context before it, except at the
beginning of the document. Bits per byte can be compared between vocabularies. Cleaning shortens the
text, and the model predicts the cleaned text only, so bits per raw byte are lower; that does not
make the model better.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from dimgpt.data.token_file import TokenFile
from dimgpt.evaluation.intervals import ratio_margin
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Perplexity:
    """The scores of a model on a file of documents."""

    documents: int
    tokens: int
    """Predicted tokens: all but the first of each document."""
    loss: float
    """Nats per token."""
    loss_margin: float
    """Half of the loss's 95 % confidence interval over documents, see `ratio_margin`."""
    accuracy: float
    """Share of the tokens that the model finds most probable, in 0..1."""
    perplexity: float
    """exp(loss)."""
    bits_per_byte: float
    """Per UTF-8 byte of cleaned text."""
    bits_per_byte_margin: float
    """Half of the 95 % confidence interval of `bits_per_byte`."""
    bits_per_raw_byte: float
    """Per UTF-8 byte before cleaning; NaN if the raw bytes were not counted, as in older data."""


@torch.inference_mode()
def measure_perplexity(
    model: Transformer,
    file: TokenFile,
    *,
    byte_counts: Array,
    runtime: Runtime,
    batch_size: int = 32,
) -> Perplexity:
    """Score every document of a token file.

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
            f"{file.num_documents} documents have no token to predict: give a file with text"
        )
    windows.sort(key=lambda window: len(window.ids))  # similar lengths together: little padding
    sums = np.zeros((file.num_documents, 4))
    for first in range(0, len(windows), batch_size):
        batch = windows[first : first + batch_size]
        scores = _score(model, batch, byte_counts, runtime)
        np.add.at(sums, [window.document for window in batch], scores)
    return _summarise(file, sums)


def _summarise(file: TokenFile, sums: Array) -> Perplexity:
    """Combine the sums of each document, (N, 4), into the scores of the file."""
    loss, correct, num_tokens, num_bytes = sums.sum(axis=0).tolist()
    bits = loss / math.log(2)
    bits_per_byte = bits / num_bytes if num_bytes else math.nan
    num_raw_bytes = file.summary.num_raw_bytes
    growth = num_raw_bytes / file.summary.num_bytes if num_raw_bytes else math.nan
    return Perplexity(
        documents=file.num_documents,
        tokens=int(num_tokens),
        loss=loss / num_tokens,
        loss_margin=ratio_margin(sums[:, 0], sums[:, 2]),
        accuracy=correct / num_tokens,
        perplexity=math.exp(loss / num_tokens),
        bits_per_byte=bits_per_byte,
        bits_per_byte_margin=ratio_margin(sums[:, 0] / math.log(2), sums[:, 3]),
        bits_per_raw_byte=bits_per_byte / growth,
    )


class _Window(NamedTuple):
    document: int
    """Number of the document in the file."""
    ids: Array
    """At most context_length + 1 ids."""
    first: int
    """The first index that counts; earlier ids are context."""


def _score(
    model: Transformer, windows: list[_Window], byte_counts: Array, runtime: Runtime
) -> Array:
    """Return each window's sums over counted tokens: nats, right guesses, tokens, bytes."""
    ids = pad_sequence([torch.from_numpy(window.ids) for window in windows], batch_first=True)
    bounds = torch.tensor([(window.first, len(window.ids)) for window in windows])
    places = torch.arange(1, ids.shape[1])
    mask = (places >= bounds[:, :1]) & (places < bounds[:, 1:])
    rows, mask = mask.nonzero()[:, 0].numpy(), mask.to(runtime.device)
    targets = ids[:, 1:].to(runtime.device)
    with runtime.autocast():
        logits = model(ids[:, :-1].to(runtime.device))
    scores, expected = logits[mask].float(), targets[mask]
    losses = F.cross_entropy(scores, expected, reduction="none").cpu()
    correct = (scores.argmax(dim=-1) == expected).cpu()
    num_bytes = byte_counts[expected.cpu().numpy()]
    columns = (losses.double().numpy(), correct.numpy(), np.ones(len(rows)), num_bytes)
    return np.stack([np.bincount(rows, column, len(windows)) for column in columns], axis=1)


def _windows(file: TokenFile, context_length: int) -> Iterator[_Window]:
    stride = max(1, context_length // 2)
    for number in range(file.num_documents):
        ids = np.asarray(file.document(number)).astype(np.int64)
        first, num_counted = 0, 1  # nothing predicts the first token
        while num_counted < len(ids):
            window = ids[first : first + context_length + 1]
            yield _Window(number, window, num_counted - first)
            num_counted = first + len(window)
            first = num_counted - 1 - (context_length - stride)
