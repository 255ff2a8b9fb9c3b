"""One export: a new folder with the files of a target, a card, and a record of what was made.

The folder appears complete or not at all. An older export of the same model is replaced; anything
else that has the name is left alone.
"""

import json
from pathlib import Path
from typing import Any

import torch

from dimgpt.config import ExportConfig
from dimgpt.files import new_folder, sha256_of
from dimgpt.model.transformer import Transformer
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.card import CURVES_NAME, Card, Usage, card_text
from dimgpt.weights.export.gguf_file import write_gguf
from dimgpt.weights.export.original import write_original
from dimgpt.weights.export.transformers_folder import write_transformers
from dimgpt.weights.store import save_model

RECORD_NAME = "export.json"
_DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def export_model(
    model: Transformer,
    tokenizer: Tokenizer,
    folder: Path,
    config: ExportConfig,
    *,
    card: Card,
    curves: bytes | None = None,
) -> Path:
    """Write a model for another program.

    Args:
        model: On any device.
        tokenizer: The model's own.
        folder: Made; an older export of the model there is replaced.
        config: For which program, in which precision.
        card: What is known about the model; its name names files.
        curves: The picture of its training, PNG.

    Returns:
        `folder`.

    Raises:
        ValueError: The program has no such model, a weight is not finite or leaves the range of
            the precision, or the folder holds something else.
        ImportError: The target needs a package that is not installed.
    """
    tokenizer.require_vocab_size(model.config.vocab_size)
    _require_replaceable(folder, card.name, config)
    _require_representable(model, config)
    with new_folder(folder) as staging:
        if config.target == "safetensors":
            dtype = _DTYPES[config.dtype]
            save_model(model, staging, tokenizer, card=card, curves=curves, dtype=dtype)
        else:
            usage = _write(model, tokenizer, staging, config, card)
            _write_card(staging, model, card, usage, curves)
        _write_record(staging, card.name, config)
    return folder


def _write(
    model: Transformer, tokenizer: Tokenizer, folder: Path, config: ExportConfig, card: Card
) -> Usage:
    if config.target == "gguf":
        return write_gguf(model, tokenizer, folder, card=card, dtype=config.dtype)
    if config.target == "pt":
        return write_original(model, tokenizer, folder)
    return write_transformers(model, tokenizer, folder, dtype=_DTYPES[config.dtype])


def _write_card(
    folder: Path, model: Transformer, card: Card, usage: Usage, curves: bytes | None
) -> None:
    if curves is not None:
        (folder / CURVES_NAME).write_bytes(curves)
    text = card_text(
        card,
        model.config,
        num_parameters=model.num_parameters,
        usage=usage,
        has_curves=curves is not None,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _require_representable(model: Transformer, config: ExportConfig) -> None:
    """Refuse weights that are no numbers, or that are too large for half precision."""
    dtype = _DTYPES.get(config.dtype, torch.float32)
    for name, tensor in model.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(
                f"{name} holds NaN or infinity: the model is damaged; export an earlier one"
            )
        if not bool(tensor.to(dtype).isfinite().all()):
            raise ValueError(
                f"{name} holds a weight of {float(tensor.abs().max()):.3g}, too large for "
                f"{config.dtype}: export with --dtype bf16 or f32"
            )


def _require_replaceable(folder: Path, name: str, config: ExportConfig) -> None:
    """Refuse to replace anything but an export of this model for this program."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    record = _read_record(folder)
    files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    foreign = sorted(files - {RECORD_NAME, *record.get("sha256", ())})
    if record.items() >= _origin(name, config).items() and not foreign:
        return
    what = f"holds {', '.join(foreign[:3])}" if foreign else f"is no export of {name}"
    raise ValueError(
        f"{folder} exists and {what}: it would be lost; give another folder with --output, or move "
        "it away"
    )


def _origin(name: str, config: ExportConfig) -> dict[str, Any]:
    return {"format": "dimgpt-export", "model": name, "target": config.target}


def _write_record(folder: Path, name: str, config: ExportConfig) -> None:
    record = {**_origin(name, config), "sha256": _hashes(folder)}
    text = json.dumps(record, indent=2) + "\n"
    (folder / RECORD_NAME).write_text(text, encoding="utf-8")


def _read_record(folder: Path) -> dict[str, Any]:
    """Return what an export says about itself, nothing if the folder is none."""
    try:
        record = json.loads((folder / RECORD_NAME).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    is_record = isinstance(record, dict) and isinstance(record.get("sha256"), dict)
    return record if is_record else {}


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
