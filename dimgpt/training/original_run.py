"""Continues an unfinished run of DimensionGPT's own trainer.

    output/last/model.pt, last/optimizer.pt    the newest validated state; the second has the step
    output/best/model.pt                       the weights of the lowest validation loss
    output/metrics.pkl                         lists with an entry for each validation

The original never trained its norms and stored no state for them; this trainer trains them. It
stored no random state either, so the following batches are those that dimgpt draws for the same
steps. Formats: https://github.com/angeluriot/Language_model, `trainer.py`. No code in the files is
executed.
"""

import dataclasses
import logging
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dimgpt.config import ModelConfig
from dimgpt.data.preparing.plain_pickle import read_plain_pickle
from dimgpt.training.run_state import RunState
from dimgpt.weights.checkpoint_file import load_plain, read_checkpoint
from dimgpt.weights.checkpoints import LAYOUTS
from dimgpt.weights.layout import build_model, require_finite, sizes_in, without_output

log = logging.getLogger(__name__)

_METRICS = "metrics.pkl"
_COLUMNS = ("time", "step", "tokens", "epochs", "loss", "accuracy", "val_loss", "val_accuracy")
# The matrices of a block under dimgpt's names, in the order of the original's parameters.
_MATRICES = (
    *(f"attention.{name}.weight" for name in ("query", "key", "value", "output")),
    *(f"feed_forward.{name}.weight" for name in ("gate", "up", "down")),
)
_AGAIN = "copy the whole folder of the run again"
Row = Mapping[str, Any]
"""The original's measurements at one validation, under its names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OriginalRun:
    """An unfinished run in dimgpt's terms."""

    state: RunState
    tensors: dict[str, dict[str, Tensor]]
    """`model` and `optimizer`, as a checkpoint holds them."""
    history: list[dict[str, Any]]
    """Records for `history.jsonl`."""
    best: tuple[RunState, dict[str, Tensor]] | None
    """State and weights of the lowest validation loss; `None` if the weights are missing."""


def is_original_run(folder: Path) -> bool:
    """Say whether a folder looks like the `output/` of DimensionGPT's trainer."""
    return (folder / _METRICS).exists() or (folder / "last").is_dir()


def read_original_run(folder: Path, config: ModelConfig) -> OriginalRun:
    """Read a run of the original's trainer; drop rows of its metrics after its last save.

    Args:
        folder: Its `output/`.
        config: The model that continues the run.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: The model has other sizes, or a file is damaged or of another run.
    """
    last = folder / "last"
    if not (last / "optimizer.pt").is_file():
        alone = shlex.quote(str(last / "model.pt"))
        raise FileNotFoundError(
            f"{last / 'optimizer.pt'} is missing: a run cannot continue without it; {_AGAIN}, or "
            f"use the weights alone: `python -m dimgpt import {alone} --name NAME`, then "
            "`finetune --name NAME`"
        )
    model = _read_weights(last / "model.pt", config)
    optimizer, step = _read_optimizer(last / "optimizer.pt", model, config.num_layers)
    rows = _rows_until(step, folder / _METRICS)
    states = list(_states(rows, config.context_length))
    best_index = len(rows) - 1 - states[-1].num_validations_since_best
    weights = model if best_index == len(rows) - 1 else None
    if weights is None and (path := folder / "best" / "model.pt").is_file():
        weights = _read_weights(path, config)
    records = [
        record
        for row, state in zip(rows, states, strict=True)
        for record in _records(row, state, config.context_length)
    ]
    return OriginalRun(
        state=states[-1],
        tensors={"model": model, "optimizer": optimizer},
        history=records,
        best=None if weights is None else (states[best_index], weights),
    )


def _read_weights(path: Path, config: ModelConfig) -> dict[str, Tensor]:
    (tensors, _), layout, source = read_checkpoint(path), LAYOUTS["dimensiongpt"], str(path)
    shown = sizes_in(tensors, layout, source=source)
    if (shown["num_layers"], shown["embedding_dim"]) != (config.num_layers, config.embedding_dim):
        raise ValueError(
            f"{path} has {shown['num_layers']} blocks of width {shown['embedding_dim']:,}, but the "
            f"settings ask for {config.num_layers} of width {config.embedding_dim:,}: set "
            "model.num_layers, model.embedding_dim and the other sizes to those of the run"
        )
    if shown["vocab_size"] != config.vocab_size:
        raise ValueError(
            f"{path} has a vocabulary of {shown['vocab_size']:,} tokens, but the "
            f"vocabulary here has {config.vocab_size:,}: import the run's data with "
            "`python -m dimgpt import-data`"
        )
    tensors = without_output(tensors, layout, source=source)
    return dict(build_model(config, tensors, layout=layout, source=source).state_dict())


def _read_optimizer(
    path: Path, model: Mapping[str, Tensor], num_layers: int
) -> tuple[dict[str, Tensor], int]:
    """Return AdamW's moments as `optimizer_tensors` names them, and the number of steps."""
    blocks = [f"blocks.{block}.{name}" for block in range(num_layers) for name in _MATRICES]
    names, content = ["token_embedding.weight", *blocks], load_plain(path)
    state = content.get("state") if type(content) is dict else None
    if type(state) is not dict:
        raise ValueError(f"{path} does not hold the state of a PyTorch optimizer: {_AGAIN}")
    if set(state) != set(range(len(names))):
        raise ValueError(
            f"{path} has {len(state)} entries, but a model of {num_layers} blocks has "
            f"{len(names)}, one for the embedding and {len(_MATRICES)} a block: copy it from the "
            "same folder as the model"
        )
    tensors = {}
    for number, name in enumerate(names):
        shapes = {"step": torch.Size(), "exp_avg": model[name].shape}
        shapes["exp_avg_sq"] = shapes["exp_avg"]
        for key, shape in shapes.items():
            value = state[number].get(key) if type(state[number]) is dict else None
            if type(value) is not Tensor or value.shape != shape:
                raise ValueError(
                    f"{path}: {key} of entry {number} is not a tensor of the shape "
                    f"{tuple(shape)} of {name}; copy it from the same folder as the model"
                )
            tensors[f"{name}/{key}"] = value.detach().to(torch.float32, copy=True)
    require_finite(tensors, source=str(path))
    steps = {int(tensors[f"{name}/step"]) for name in names}
    if len(steps) > 1:
        raise ValueError(f"{path} mixes several steps ({sorted(steps)}): {_AGAIN}")
    return tensors, steps.pop()


def _rows_until(step: int, path: Path) -> list[Row]:
    """Return the rows of the metrics up to a step, which must be among them."""
    content = read_plain_pickle(path)
    columns = {name: content.get(name) for name in _COLUMNS} if isinstance(content, dict) else {}
    lists = {name: values for name, values in columns.items() if isinstance(values, list)}
    if len(lists) < len(_COLUMNS):
        raise ValueError(f"{path} does not hold the lists {', '.join(_COLUMNS)}: {_AGAIN}")
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path} has lists of unequal lengths ({lengths}): {_AGAIN}")
    rows = [
        dict(zip(_COLUMNS, values, strict=True)) for values in zip(*lists.values(), strict=True)
    ]
    for number, row in enumerate(rows):
        is_plain = all(type(value) in (int, float) for value in row.values())
        is_plain = is_plain and {type(row["step"]), type(row["tokens"])} == {int}
        if not is_plain or not all(map(math.isfinite, row.values())):
            raise ValueError(f"{path}: entry {number} has values that are no numbers; {_AGAIN}")
    kept: list[Row] = [row for row in rows if row["step"] <= step]
    if not kept or kept[-1]["step"] != step:
        raise ValueError(
            f"{path} has no entry for step {step:,} of last/optimizer.pt: they belong to different "
            f"runs; {_AGAIN}"
        )
    if len(kept) < len(rows):
        log.warning(
            "%s reaches step %d, but the last save is of step %d: later measurements are dropped "
            "and those steps are repeated",
            path,
            rows[-1]["step"],
            step,
        )
    return kept


def _states(rows: Iterable[Row], context_length: int) -> Iterator[RunState]:
    state = RunState()
    for row in rows:
        state.add_validation({"loss": row["val_loss"], "accuracy": row["val_accuracy"]})
        yield dataclasses.replace(
            state,
            step=row["step"],
            looked_around_at=row["step"],
            # The original counted context_length + 1 tokens a row; dimgpt counts the targets.
            tokens=row["tokens"] // (context_length + 1) * context_length,
            seconds=float(row["time"]),
            averages={"loss": row["loss"], "accuracy": row["accuracy"]},
        )


def _records(row: Row, state: RunState, context_length: int) -> list[dict[str, Any]]:
    """Return a row as records: the moving averages of training, and the validation."""
    place = {"step": state.step, "tokens": state.tokens, "seconds": round(state.seconds, 3)}
    place["epochs"] = row["epochs"] * context_length / (context_length + 1)
    averages = {f"{name}_average": value for name, value in state.averages.items()}
    return [
        {"kind": "step", **place, "loss": None, "accuracy": None, **averages},
        {"kind": "validation", **place, **state.last_validation},
    ]
