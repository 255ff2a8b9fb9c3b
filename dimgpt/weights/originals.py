"""Weights of other systems, in our model: DimensionGPT's, lilLM's, toyGPT's, Llama's, Mistral's.

The door to the files of each system. They may come from anywhere: nothing of them is executed, and
what is none of these is refused with what was found. Nothing is written or converted on disk;
`save_model` does that.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.weights.checkpoint_file import Checkpoint, read_checkpoint
from dimgpt.weights.dimensiongpt import build_dimensiongpt
from dimgpt.weights.found import describe, list_names
from dimgpt.weights.huggingface import CONFIG_NAME, is_huggingface, load_huggingface, read_json
from dimgpt.weights.lillm import build_lillm
from dimgpt.weights.store import load_model
from dimgpt.weights.toygpt import build_toygpt

__all__ = [
    "Original",
    "System",
    "detect",
    "is_original",
    "load_dimensiongpt",
    "load_huggingface",
    "load_lillm",
    "load_original",
    "load_toygpt",
    "load_weights",
]

System = Literal["dimensiongpt", "lillm", "toygpt", "huggingface"]
_CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt")
# The tensor that tells whose a checkpoint is, and who builds it.
_BUILDERS: dict[System, tuple[str, Callable[[Checkpoint, ModelConfig | None], Transformer]]] = {
    "dimensiongpt": ("token_embedding.weight", build_dimensiongpt),
    "lillm": ("tok_emb.weight", build_lillm),
    "toygpt": ("embedding.weight", build_toygpt),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Original:
    """A model that another system made."""

    system: System
    model: Transformer
    """In evaluation mode, on the CPU."""


def load_dimensiongpt(path: Path, config: ModelConfig | None = None) -> Transformer:
    """Load a `.pt` file of the original DimensionGPT, in evaluation mode, on the CPU.

    Args:
        path: The file, `models/*.pt` of the original.
        config: The sizes; every one that the file shows is checked. `None` takes from the file
            what it shows, and the published values for what it does not: 16 query and 4 key-value
            heads, window 256, context 512.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no such state dict, is damaged, or has other sizes.
    """
    return build_dimensiongpt(read_checkpoint(path), config)


def load_lillm(path: Path, config: ModelConfig | None = None) -> Transformer:
    """Load a `.pt` file of lilLM, in evaluation mode, on the CPU.

    Args:
        path: The file, `best_model.pt` of a pretraining or fine-tuning, or its state dict.
        config: The sizes. `None` takes them from the config in the file, which is compared with the
            tensors; without one from the tensors, with the published heads and context 512.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is none of lilLM's, is damaged, or has other sizes.
    """
    return build_lillm(read_checkpoint(path), config)


def load_toygpt(path: Path, config: ModelConfig | None = None) -> Transformer:
    """Load a checkpoint of toyGPT, in evaluation mode, on the CPU.

    Args:
        path: The Lightning checkpoint, or its state dict.
        config: The sizes. `None` takes them from `hyper_parameters`, which are compared with the
            tensors; without them from the tensors, with the published heads and context 512.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is none of toyGPT's, is damaged, or has other sizes.
    """
    return build_toygpt(read_checkpoint(path), config)


def load_weights(path: Path) -> Transformer:
    """Load a model folder of dimgpt, or weights of another system, without a tokenizer.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is damaged, or none of them.
    """
    return load_original(path).model if is_original(path) else load_model(path)


def is_original(path: Path) -> bool:
    """Say whether a path is for `load_original` rather than for `load_model` to open.

    A file always is; a folder is if its config.json names a kind of model, or if it has one
    checkpoint and was not made here. Whether its content is sound is not looked at.
    """
    if path.is_dir():
        return is_huggingface(path) or (not _is_ours(path) and len(_checkpoints_in(path)) == 1)
    return path.is_file() or path.suffix in _CHECKPOINT_SUFFIXES


def detect(path: Path) -> System:
    """Say whose weights a file or folder holds.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: They are none of the systems'; the message says what was found.
    """
    if path.is_dir() and is_huggingface(path):
        return "huggingface"
    return _system_of(read_checkpoint(_checkpoint_at(path)))


def load_original(path: Path, *, sizes: Mapping[str, int] | None = None) -> Original:
    """Load what another system made, whichever it is.

    Args:
        path: A checkpoint, a folder with one, or a folder of Llama's or Mistral's shape.
        sizes: What a checkpoint does not say: `num_heads`, `num_kv_heads`, `window_size`,
            `context_length`; without them they are as published. For Llama and Mistral the last of
            them alone, which shortens the context.

    Raises:
        FileNotFoundError: There is nothing.
        ValueError: It is damaged, holds code, is inconsistent, or none of the systems'.
    """
    if path.is_dir() and is_huggingface(path):
        given = dict(sizes or {})
        context_length = given.pop("context_length", None)
        if given:
            raise ValueError(
                f"{', '.join(given)} given: {path / CONFIG_NAME} says it; leave it out"
            )
        model = load_huggingface(path, context_length=context_length)
        return Original(system="huggingface", model=model)
    checkpoint = replace(read_checkpoint(_checkpoint_at(path)), given=sizes or {})
    system = _system_of(checkpoint)
    return Original(system=system, model=_BUILDERS[system][1](checkpoint, None))


def _system_of(checkpoint: Checkpoint) -> System:
    for system, (name, _) in _BUILDERS.items():
        if name in checkpoint.tensors:
            return system
    found = f"tensors {list_names(checkpoint.tensors)}" if checkpoint.tensors else "no tensors"
    raise ValueError(
        f"{checkpoint.source} has {found}: these are not the weights of DimensionGPT, lilLM or "
        "toyGPT"
    )


def _checkpoint_at(path: Path) -> Path:
    """Return the checkpoint that a path means: itself, or the only one in a folder."""
    if path.is_dir() and _is_ours(path):
        raise ValueError(f"{path} is a model folder that was made here: it opens as it is")
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
            "of a Llama or Mistral"
        )
    return path


def _is_ours(folder: Path) -> bool:
    """Say whether a folder claims to be made here; what is wrong with it says `load_model`."""
    try:
        return "format" in read_json(folder / CONFIG_NAME)
    except FileNotFoundError:
        return (folder / ".saved").exists()  # a save that is complete, but not yet in its place
    except ValueError:
        return True


def _checkpoints_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in _CHECKPOINT_SUFFIXES)
