"""Opens weights of other systems: DimensionGPT, lilLM, toyGPT, Llama, Mistral, Qwen 3.

The files may be untrusted: none of their code is executed. Nothing is written to the disk.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.weights.checkpoints import CheckpointSystem, load_checkpoint
from dimgpt.weights.foreign_files import describe, list_names, read_json
from dimgpt.weights.huggingface import load_huggingface
from dimgpt.weights.store import CONFIG_NAME, SAVED, load_model

System = CheckpointSystem | Literal["huggingface"]
_CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Original:
    """A model of another system."""

    system: System
    model: Transformer
    """In evaluation mode, on the CPU."""


def load_original(
    path: Path, config: ModelConfig | None = None, *, sizes: Mapping[str, int] | None = None
) -> Original:
    """Load weights of another system, in evaluation mode, on the CPU.

    Args:
        path: A checkpoint, a folder with one, or a folder that `load_huggingface` opens.
        config: Settings of the model, as in `load_checkpoint`; not together with `sizes`.
        sizes: Sizes that a checkpoint lacks: `num_heads`, `num_kv_heads`, `window_size`,
            `context_length`. A folder takes only `context_length`, to shorten its context.

    Raises:
        FileNotFoundError: `path` does not exist.
        ValueError: The file is damaged, contains code, is inconsistent, or belongs to no known
            system; or a size is given that the file already contains.
    """
    given = dict(sizes or {})
    if config and given:
        raise ValueError(
            f"config and {', '.join(given)} given: the config contains all sizes; leave one of the "
            "two out"
        )
    if _is_huggingface(path):
        context_length = given.pop("context_length", None)
        if given or config:
            raise ValueError(
                f"{', '.join(given) or 'config'} given: {path / CONFIG_NAME} contains it; "
                "leave it out"
            )
        model = load_huggingface(path, context_length=context_length)
        return Original(system="huggingface", model=model)
    system, model = load_checkpoint(_checkpoint_at(path), config, given)
    return Original(system=system, model=model)


def load_weights(path: Path) -> Transformer:
    """Load a model folder of dimgpt, or weights of another system, without a tokenizer."""
    return load_original(path).model if is_original(path) else load_model(path)


def is_original(path: Path) -> bool:
    """Return whether `load_original`, not `load_model`, opens a path.

    True for every file, and for a folder if its config.json names a kind of model, or if it has one
    checkpoint and was not written by dimgpt. The content is not checked.
    """
    if path.is_dir():
        return _is_huggingface(path) or (not _is_ours(path) and len(_checkpoints_in(path)) == 1)
    return path.is_file() or path.suffix in _CHECKPOINT_SUFFIXES


def _is_huggingface(folder: Path) -> bool:
    """Return whether a folder has a config.json that names a kind of model."""
    with contextlib.suppress(OSError, ValueError):
        return "model_type" in read_json(folder / CONFIG_NAME)
    return False


def _is_ours(folder: Path) -> bool:
    """Return whether a folder looks like one of dimgpt's; `load_model` reports its errors."""
    try:
        return "format" in read_json(folder / CONFIG_NAME)
    except FileNotFoundError:
        return (folder / SAVED).exists()  # a complete save whose files are not in place yet
    except ValueError:
        return True


def _checkpoint_at(path: Path) -> Path:
    """Return the checkpoint at a path: the file itself, or the only one in a folder."""
    if path.is_dir() and _is_ours(path):
        raise ValueError(f"{path} is a model folder of dimgpt: use it without importing it")
    found = _checkpoints_in(path) if path.is_dir() else []
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{path} holds several checkpoints ({list_names([file.name for file in found])}): "
            "give one of them"
        )
    if path.is_dir() or path.suffix == ".safetensors":
        raise ValueError(
            f"{path} is {describe(path)}: give a checkpoint of DimensionGPT, lilLM or toyGPT "
            f"({' '.join(_CHECKPOINT_SUFFIXES)}), or a folder with {CONFIG_NAME} and the weights "
            "of a Llama, Mistral or Qwen3"
        )
    return path


def _checkpoints_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in _CHECKPOINT_SUFFIXES)
