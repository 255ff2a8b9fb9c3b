"""One export: a new folder with the files of a target, a card, and a record of what was made.

The folder appears complete or not at all. An older export of the same model is replaced; anything
else that has the name is left alone. The two simple targets are written here: a model folder of
ours, and the original DimensionGPT's file, a bare state dict with `vocab.txt` beside it. That file
says no sizes: the notebooks of the original read them from their own constants.
"""

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
_DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_PT_NAME, _VOCABULARY_NAME = "model.pt", "vocab.txt"
# The parts of a model that each program has; Mistral is a Llama with a window.
_LLAMA: dict[str, Any] = {
    "norm": "rms",
    "positions": "rotary",
    "feed_forward": "swiglu",
    "use_biases": False,
    "use_final_norm": True,
}
_DIMENSIONGPT = _LLAMA | {
    name: getattr(ModelConfig(), name) for name in ("tie_embeddings", "norm_eps", "rope_theta")
}
_PROGRAMS: dict[ExportTarget, tuple[str, dict[str, Any]]] = {
    "transformers": ("transformers", _LLAMA),
    "gguf": ("llama.cpp", _LLAMA),
    "pt": ("the original DimensionGPT", _DIMENSIONGPT),
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
    origin = {"format": "dimgpt-export", "model": card.name, "target": config.target}
    _require_replaceable(folder, origin)
    _require_representable(model, config)
    _require_architecture(model.config, config.target)
    with new_folder(folder) as staging:
        if config.target == "safetensors":
            dtype = _DTYPES[config.dtype]
            save_model(model, staging, tokenizer, card=card, curves=curves, dtype=dtype)
        else:
            _write_foreign(model, tokenizer, staging, config, card, curves)
        hashes = {path.name: sha256_of(path) for path in sorted(staging.iterdir())}
        text = json.dumps({**origin, "sha256": hashes}, indent=2) + "\n"
        (staging / RECORD_NAME).write_text(text, encoding="utf-8")
    return folder


def write_original(model: Transformer, tokenizer: Tokenizer, folder: Path) -> Usage:
    """Write weights and vocabulary of the original DimensionGPT into an empty folder.

    Raises:
        ValueError: The tokenizer is of another kind.
    """
    if tokenizer.file_name != _VOCABULARY_NAME:
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
    torch.save(tensors, folder / _PT_NAME)
    tokenizer.save(folder / _VOCABULARY_NAME)
    return Usage(
        text=f"Copy `{_PT_NAME}` to `models/` and `{_VOCABULARY_NAME}` to `data/` of the original\n"
        "DimensionGPT, set the sizes above in its settings, and run its `testing.ipynb`. dimgpt "
        f"takes the two over with\n`{_import_command(model.config)}`."
    )


def _import_command(config: ModelConfig) -> str:
    """Return the command that imports the file, with the sizes that it does not show."""
    published = ModelConfig()
    words = ["python -m dimgpt import", _PT_NAME]
    for name in ("context_length", "window_size", "num_heads", "num_kv_heads"):
        size = getattr(config, name) or config.context_length  # for a model without a window
        if size != getattr(published, name):
            words.append(f"--{name.replace('_', '-')} {size}")
    return " ".join(words)


def _write_foreign(
    model: Transformer,
    tokenizer: Tokenizer,
    folder: Path,
    config: ExportConfig,
    card: Card,
    curves: bytes | None,
) -> None:
    """Write the files of another program, and the card that tells how it opens them."""
    if config.target == "gguf":
        usage = write_gguf(model, tokenizer, folder, name=card.name, dtype=config.dtype)
    elif config.target == "pt":
        usage = write_original(model, tokenizer, folder)
    else:
        usage = write_transformers(model, tokenizer, folder, dtype=_DTYPES[config.dtype])
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


def _require_architecture(config: ModelConfig, target: ExportTarget) -> None:
    """Refuse a model that the program of a target cannot run, naming the parts that it lacks."""
    if target == "safetensors":  # dimgpt itself
        return
    program, wanted = _PROGRAMS[target]
    reasons = [
        f"{name} is {getattr(config, name)!r}, not {value!r}"
        for name, value in wanted.items()
        if getattr(config, name) != value
    ]
    if reasons:
        is_llama = all(getattr(config, name) == value for name, value in _LLAMA.items())
        others = "transformers, gguf or safetensors" if is_llama else "safetensors"
        hint = "" if target == "pt" else _why_not_gpt2(config)
        raise ValueError(
            f"{program} has no such model: {', '.join(reasons)}{hint}; export it with --to {others}"
        )


def _why_not_gpt2(config: ModelConfig) -> str:
    """Say why a model with sinusoidal positions is no GPT-2, the nearest that others have."""
    if config.positions != "sinusoidal" or (config.use_final_norm and not config.use_biases):
        return ""
    missing = "" if config.use_final_norm else "normalises before its output layer"
    bias = "has no bias in its output layer" if config.use_biases else ""
    return (
        ". GPT-2 learns its positions: it could take these fixed waves for learned ones, but it "
        f"{' and '.join(filter(None, (missing, bias)))}"
    )


def _require_representable(model: Transformer, config: ExportConfig) -> None:
    """Refuse weights that are no numbers, or that are too large for half precision."""
    dtype = _DTYPES.get(config.dtype, torch.float32)
    require_finite(model.state_dict(), source="the model")
    for name, tensor in model.state_dict().items():
        if not bool(tensor.to(dtype).isfinite().all()):
            raise ValueError(
                f"{name} holds a weight of {float(tensor.abs().max()):.3g}, too large for "
                f"{config.dtype}: export with --dtype bf16 or f32"
            )


def _require_replaceable(folder: Path, origin: dict[str, str]) -> None:
    """Refuse to replace anything but an export of this model for this program."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        record = read_json(folder / RECORD_NAME)
    except (OSError, ValueError):
        record = {}
    hashes = record.get("sha256")
    known = {RECORD_NAME, *(hashes if isinstance(hashes, dict) else ())}
    files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    foreign = sorted(files - known)
    if record.items() >= origin.items() and not foreign:
        return
    what = f"holds {', '.join(foreign[:3])}" if foreign else f"is no export of {origin['model']}"
    raise ValueError(
        f"{folder} exists and {what}: it would be lost; give another folder with --output, or move "
        "it away"
    )
