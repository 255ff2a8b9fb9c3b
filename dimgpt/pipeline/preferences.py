"""Training on preferences: reference log-probabilities, and a comparison with the base model."""

import contextlib
import hashlib
import io
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dimgpt.config import SamplingConfig
from dimgpt.data.reading.batch import Array, Batch
from dimgpt.data.reading.preferences import PreferenceData
from dimgpt.files import replace_file
from dimgpt.generation.generator import TextGenerator
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.data import open_data
from dimgpt.runtime import Runtime
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.training.loss import answer_log_probabilities
from dimgpt.training.micro_batches import TrainingData
from dimgpt.weights.store import load_model
from dimgpt.workspace import Stage, Workspace, load_vocabulary

_BATCH_SIZE = 32


def add_reference(
    data: TrainingData, model: Transformer, run_dir: Path, *, key: str, runtime: Runtime
) -> None:
    """Add the log-probabilities of the answers under the base model to preference data.

    They are computed once and kept in the run's folder. Each process computes its own.

    Args:
        data: The data to change; data of other stages stay as they are.
        model: The base model; moved to the runtime's device.
        run_dir: Folder of the run.
        key: Identifies model and data; with another key the values are computed again.
        runtime: Device and precision.
    """
    if not isinstance(data, PreferenceData):
        return
    splits = (data.train, data.validation)
    num_train, num_pairs = len(data.train.pairs), sum(len(split.pairs) for split in splits)
    name = hashlib.sha256(f"{key} {num_train} {num_pairs}".encode()).hexdigest()[:16]
    path, reference = run_dir / f"reference-{name}.npy", None
    with contextlib.suppress(OSError, ValueError, EOFError):
        reference = np.load(path, allow_pickle=False)
    if reference is None or reference.shape != (num_pairs, 2):
        batches = (batch for split in splits for batch in split.batches(_BATCH_SIZE))
        reference = _log_probabilities(model, batches, runtime)
        if runtime.is_first:
            content = io.BytesIO()
            np.save(content, reference)
            run_dir.mkdir(parents=True, exist_ok=True)
            replace_file(path, content.getvalue())
    data.train.reference, data.validation.reference = np.split(reference, [num_train])


def compare_stages(
    workspace: Workspace, *, runtime: Runtime, num_pairs: int = 200
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Compare the models before and after training on preferences, on held-out pairs.

    Returns:
        One row a model: `win rate`, the share of pairs in which the better answer is more probable
        than the other one; and `exact match`, the share of questions whose greedy answer is
        exactly the better answer. And one row a pair: the question, the better answer, and the
        greedy answer of each model.
    """
    stages: tuple[Stage, ...] = ("finetuning", "preferences")
    data, tokenizer = open_data(workspace, "preferences"), load_vocabulary(workspace)
    assert isinstance(data, PreferenceData)
    chosen, chat = data.validation.pairs[:num_pairs], tokenizer.chat
    opener = chat.assistant_opener
    prompts = [[*chat.beginning, *prompt.tolist(), *opener] for prompt, *_ in chosen]
    better = [tokenizer.decode(answer[len(opener) :]).strip() for _, answer, _ in chosen]
    answers = [
        {"question": _said_in(prompt, tokenizer), "better": text}
        for (prompt, *_), text in zip(chosen, better, strict=True)
    ]
    longest = max(len(answer) for _, answer, _ in chosen)
    greedy, scores = SamplingConfig(temperature=0.0, max_new_tokens=2 * longest), []
    for folder in map(workspace.model_dir, stages):
        name, model = folder.name, load_model(folder)
        batches = data.validation.batches(_BATCH_SIZE, limit=num_pairs)
        found = _log_probabilities(model, batches, runtime)
        said = TextGenerator(model, tokenizer).complete_batch(prompts, greedy, is_chat=True)
        texts = [tokenizer.decode(ids).strip() for ids in said]
        is_right = [one == other for one, other in zip(texts, better, strict=True)]
        win_rate, exact = np.mean(found[:, 0] > found[:, 1]), np.mean(is_right)
        scores.append({"model": name, "win rate": f"{win_rate:.1%}", "exact match": f"{exact:.1%}"})
        for row, text in zip(answers, texts, strict=True):
            row[name] = text
    return scores, answers


def _said_in(prompt: Array, tokenizer: Tokenizer) -> str:
    """Return the messages of a conversation in one line, without its special tokens."""
    special = set(tokenizer.special_ids.values())
    groups = groupby(prompt.tolist(), special.__contains__)
    return " · ".join(tokenizer.decode(ids) for is_special, ids in groups if not is_special)


@torch.no_grad()
def _log_probabilities(model: Transformer, batches: Iterable[Batch], runtime: Runtime) -> Array:
    """Return the log-probabilities of both answers of all N pairs, float32 (N, 2)."""
    model.to(runtime.device).eval()
    found = []
    for batch in batches:
        with runtime.autocast():
            found.append(answer_log_probabilities(model, batch.to(runtime.device)).cpu().numpy())
    return np.concatenate(found)
