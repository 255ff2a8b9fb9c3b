"""A model folder, or weights of another system, written for another program."""

import dataclasses
from pathlib import Path

from dimgpt.config import ExportConfig
from dimgpt.pipeline.models import open_model
from dimgpt.runtime import choose_runtime
from dimgpt.weights.card import Card
from dimgpt.weights.export.exporter import export_model
from dimgpt.weights.store import CONFIG_NAME, load_card


def export(
    path: Path,
    config: ExportConfig,
    *,
    output: Path | None = None,
    tokenizer_path: Path | None = None,
) -> Path:
    """Write a model for another program, and return the folder.

    Args:
        path: What `open_model` takes.
        config: For which program, in which precision.
        output: Folder to make; `None` names it after model and target, beside the model.
        tokenizer_path: What `open_model` takes.

    Raises:
        FileNotFoundError: The model or its tokenizer is missing.
        ValueError: They are damaged, the program has no such model, or the folder holds something
            else.
    """
    runtime = choose_runtime("fp32", "cpu")
    model, tokenizer = open_model(path, runtime=runtime, tokenizer_path=tokenizer_path)
    path = path.resolve()
    card, curves = load_card(path) if (path / CONFIG_NAME).is_file() else (Card(), None)
    name = card.name or (path.name if path.is_dir() else path.stem)
    suffix = "" if config.dtype == "f32" else f"-{config.dtype}"
    folder = output or path.with_name(f"{name}-{config.target}{suffix}")
    card = dataclasses.replace(card, name=name)
    return export_model(model, tokenizer, folder, config, card=card, curves=curves)
