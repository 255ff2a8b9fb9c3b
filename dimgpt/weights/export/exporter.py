"""Writes a folder for another program: its files, a card, and a record of the export.

The folder appears complete or not at all. An older export of the same model is replaced; any other
file or folder of that name is refused. The file of the original DimensionGPT is written here: a
bare state dict with `vocab.txt` beside it; its notebooks read the sizes from their own constants.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

import torch

from dimgpt.config import ExportConfig, ExportTarget, ModelConfig
from dimgpt.files import new_folder, sha256_of
from dimgpt.model.transformer import Transformer
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.card import CURVES_NAME, Card, Usage, card_text
from dimgpt.weights.checkpoints import LAYOUTS
from dimgpt.weights.export.gguf_file import write_gguf
from dimgpt.weights.export.transformers_folder import write_transformers
from dimgpt.weights.foreign_files import read_json
from dimgpt.weights.layout import require_finite
from dimgpt.weights.store import save_model

RECORD_NAME = "export.json"
_DTYPES = {  # q8_0 is made from float32
    "f32": torch.float32,
    "f16": torch.float16,
    "bf16": torch.bfloat16,
    "q8_0": torch.float32,
}
# The settings that each program supports; Mistral is a Llama with a window, Qwen 3 one with
# normalised queries and keys.
_LLAMA: dict[str, Any] = {
    "norm": "rms",
    "positions": "rotary",
    "feed_forward": "swiglu",
    "num_experts": None,
    "use_biases": False,
    "use_final_norm": True,
    "logit_cap": None,
    "use_stream_scalars": False,
    "use_value_embeddings": False,
}
# With experts it is a Mixtral, which has no other parts.
_MIXTRAL = {name: part for name, part in _LLAMA.items() if name != "num_experts"} | {
    "qk_norm": False,
    "use_shared_expert": False,
}
_DIMENSIONGPT = _LLAMA | {
    name: getattr(ModelConfig(), name)
    for name in ("qk_norm", "tie_embeddings", "norm_eps", "rope_theta")
}
_ABOUT_GPT2 = (
    ". GPT-2, the nearest there, learns its positions, normalises before its output layer, and has "
    "no bias in its output layer"
)
# Name of each program, the settings that it supports, and further ones for models whose layers have
# different windows. DimensionGPT has no such models.
_PROGRAMS: dict[ExportTarget, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "transformers": ("transformers", _LLAMA, {"qk_norm": True}),
    "gguf": ("llama.cpp", _LLAMA, {}),
    "pt": ("the original DimensionGPT", _DIMENSIONGPT, {"window_size": None}),
    "safetensors": ("dimgpt", {}, {}),
}


def export_model(
    model: Transformer,
    tokenizer: Tokenizer,
    folder: Path,
    config: ExportConfig,
    *,
    card: Card,
    curves: bytes | None = None,
) -> Path:
    """Write a model for another program, and return the folder.

    Args:
        model: On any device.
        tokenizer: The model's own.
        folder: Created; an older export of the model there is replaced.
        config: Target program and precision.
        card: Facts about the model; some files are named after `card.name`.
        curves: The picture of its training, PNG.

    Raises:
        ValueError: The program does not support the model, a weight is not finite or leaves the
            range of the precision, or the folder holds something else.
        ImportError: The target needs a package that is not installed.
    """
    tokenizer.require_vocab_size(model.config.vocab_size)
    identity = {"format": "dimgpt-export", "model": card.name, "target": config.target}
    _require_replaceable(folder, identity)
    _require_architecture(model.config, config.target)
    dtype = _DTYPES[config.dtype]
    _require_representable(model, dtype)
    with new_folder(folder) as staging:
        if config.target == "safetensors":
            save_model(model, staging, tokenizer, card=card, curves=curves, dtype=dtype)
        else:
            usage = _write_foreign(model, tokenizer, staging, config, name=card.name)
            if curves is not None:
                (staging / CURVES_NAME).write_bytes(curves)
            text = card_text(card, model.config, usage=usage, has_curves=curves is not None)
            (staging / "README.md").write_text(text, encoding="utf-8")
        hashes = {path.name: sha256_of(path) for path in sorted(staging.iterdir())}
        record = {**identity, "origin": card.origin, "sha256": hashes}
        text = json.dumps(record, indent=2) + "\n"
        (staging / RECORD_NAME).write_text(text, encoding="utf-8")
    return folder


def _write_foreign(
    model: Transformer, tokenizer: Tokenizer, folder: Path, config: ExportConfig, *, name: str
) -> Usage:
    if config.target == "gguf":
        return write_gguf(model, tokenizer, folder, name=name, dtype=config.dtype)
    if config.target == "pt":
        return write_original(model, tokenizer, folder)
    return write_transformers(model, tokenizer, folder, dtype=_DTYPES[config.dtype])


def write_original(model: Transformer, tokenizer: Tokenizer, folder: Path) -> Usage:
    """Write weights and vocabulary of the original DimensionGPT into an empty folder."""
    if tokenizer.file_name != "vocab.txt":
        raise ValueError(
            f"the model's tokenizer is a {tokenizer.file_name}: the original DimensionGPT reads a "
            "vocab.txt only; export with --to transformers, gguf or safetensors"
        )
    layout = LAYOUTS["dimensiongpt"]
    tensors = {
        layout.theirs(name): tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in model.state_dict().items()
    }
    tensors[layout.theirs("output_weight")] = tensors["token_embedding.weight"]  # one storage
    torch.save(tensors, folder / "model.pt")
    tokenizer.save(folder / "vocab.txt")
    command, config = "python -m dimgpt import model.pt", model.config
    window = config.windows[0] or config.context_length
    for name in ("context_length", "window_size", "num_heads", "num_kv_heads"):
        size = window if name == "window_size" else getattr(config, name)
        if size != getattr(ModelConfig(), name):  # the file does not show these sizes
            command += f" --{name.replace('_', '-')} {size}"
    return Usage(
        text="Copy `model.pt` to `models/` and `vocab.txt` to `data/` of the original\n"
        "DimensionGPT, set the sizes above in its settings, and run its `testing.ipynb`. dimgpt "
        f"takes the two over with\n`{command}`."
    )


def _require_architecture(config: ModelConfig, target: ExportTarget) -> None:
    """Refuse a model that the target program cannot run, naming the settings."""
    if lacks := _lacking(config, target):
        others = [name for name in _PROGRAMS if not _lacking(config, name)]
        is_near_gpt2 = target != "pt" and config.positions == "sinusoidal"
        hint = _ABOUT_GPT2 if is_near_gpt2 else ""
        raise ValueError(
            f"{_PROGRAMS[target][0]} does not support this model: {', '.join(lacks)}{hint}; "
            f"export it with --to {' or '.join(others)}"
        )


def _lacking(config: ModelConfig, target: ExportTarget) -> list[str]:
    """List the fields of a model for which the target program needs another value."""
    _, parts, parts_for_mixed = _PROGRAMS[target]
    is_mixtral = target == "transformers" and config.num_experts is not None
    if is_mixtral:
        parts, parts_for_mixed = _MIXTRAL, {"num_experts": None}
    reasons = dict.fromkeys(parts, "")
    if len(set(config.windows)) > 1:
        parts = parts | parts_for_mixed
        pattern = f", for the attention_pattern {config.attention_pattern}"
        reasons |= dict.fromkeys(parts_for_mixed, pattern)
    lacks = [
        f"{name} is {getattr(config, name)!r}, not {value!r}{reasons[name]}"
        for name, value in parts.items()
        if getattr(config, name) != value
    ]
    if is_mixtral and config.experts_per_token == 1:  # its weight would be 1 there
        lacks.append("experts_per_token is 1, not 2 or more")
    return lacks


def _require_representable(model: Transformer, dtype: torch.dtype) -> None:
    require_finite(model.state_dict(), source="the model")
    for name, tensor in model.state_dict().items():
        if not bool(tensor.to(dtype).isfinite().all()):
            raise ValueError(
                f"{name} holds a weight of {float(tensor.abs().max()):.3g}, too large for "
                f"{str(dtype).removeprefix('torch.')}: export with --dtype bf16 or f32"
            )


def _require_replaceable(folder: Path, identity: dict[str, str]) -> None:
    """Refuse to replace anything but an export of this model for this program."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    record: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        record = read_json(folder / RECORD_NAME)
    hashes = record.get("sha256")
    known = {RECORD_NAME, *(hashes if isinstance(hashes, dict) else ())}
    files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    foreign = sorted(files - known)
    if record.items() >= identity.items() and not foreign:
        return
    what = f"holds {', '.join(foreign[:3])}" if foreign else f"is no export of {identity['model']}"
    raise ValueError(
        f"{folder} exists and {what}, so it is not overwritten: give another folder with --output, "
        "or move it away"
    )
