"""Weights of the original systems, in our model.

The original DimensionGPT saves a bare state dict with `torch.save`, without a config. Such a file
may come from anywhere: it is read with `weights_only=True`, which executes nothing of it, and there
is no other way in. Nothing is written or converted on disk; `save_model` does that.
"""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.weights.store import build_model

_PUBLISHED = ModelConfig()
_OUTPUT_NAME = "final_linear.weight"
_RENAMED = {
    "norm_1": "attention_norm",
    "norm_2": "ffn_norm",
    "attention.projection": "attention.output",
    "feed_forward.linear_1": "feed_forward.gate",
    "feed_forward.linear_2": "feed_forward.up",
    "feed_forward.linear_3": "feed_forward.down",
}


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
    tensors = {rename(name): tensor for name, tensor in _read_state_dict(path).items()}
    output = tensors.pop(_OUTPUT_NAME, None)
    embedding = tensors.get("token_embedding.weight")
    if output is None or embedding is None or not torch.equal(output, embedding):
        raise ValueError(
            f"{path}: {_OUTPUT_NAME} is not the same matrix as token_embedding.weight, which "
            "DimensionGPT ties; take the file that the original trainer saved"
        )
    shown = sizes_in(tensors, source=str(path))
    if config is None:
        config = _config_of(shown, source=str(path))
    _require_same(shown, config, source=str(path))
    return build_model(config, tensors, source=str(path))


def rename(name: str) -> str:
    """Return our name of a tensor of the original.

    >>> rename("_orig_mod.blocks.3.feed_forward.linear_1.weight")
    'blocks.3.feed_forward.gate.weight'
    """
    name = name.removeprefix("_orig_mod.")  # left by torch.compile
    match = re.fullmatch(r"(blocks\.\d+)\.(.+)\.weight", name)
    if match is None:
        return name
    return f"{match[1]}.{_RENAMED.get(match[2], match[2])}.weight"


def sizes_in(tensors: Mapping[str, Tensor], *, source: str) -> dict[str, int]:
    """Read the sizes that a renamed state dict shows: fields of `ModelConfig`, and `kv_dim`.

    Raises:
        ValueError: A tensor that shows a size is missing or no matrix.
    """
    first = "blocks.0.attention.key.weight", "blocks.0.feed_forward.gate.weight"
    try:
        vocab_size, embedding_dim = tensors["token_embedding.weight"].shape
        kv_dim, ffn_dim = (tensors[name].shape[0] for name in first)
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(
            f"{source} is no state dict of DimensionGPT ({type(error).__name__}: {error}): take "
            "the .pt file that the original trainer saved"
        ) from None
    layers = {
        int(match[1]) for name in tensors if (match := re.match(r"blocks\.(\d{1,6})\.", name))
    }
    return {
        "vocab_size": vocab_size,
        "embedding_dim": embedding_dim,
        "num_layers": max(layers) + 1,
        "ffn_dim": ffn_dim,
        "kv_dim": kv_dim,
    }


def _config_of(shown: Mapping[str, int], *, source: str) -> ModelConfig:
    """Return the published config in the sizes of the file."""
    sizes: dict[str, Any] = {name: size for name, size in shown.items() if name != "kv_dim"}
    try:
        return replace(_PUBLISHED, **sizes)
    except ValueError as error:
        raise ValueError(f"{source} has other heads than the published ones: {error}") from None


def _require_same(shown: Mapping[str, int], config: ModelConfig, *, source: str) -> None:
    """Refuse a file whose sizes are not those of the config, naming all that differ."""
    wanted = {**asdict(config), "kv_dim": config.num_kv_heads * config.head_dim}
    different = [
        f"{name} is {size} in the file and {wanted[name]} in the config"
        for name, size in shown.items()
        if size != wanted[name]
    ]
    if different:
        raise ValueError(
            f"{source}: {', '.join(different)} ({config.num_heads} query and {config.num_kv_heads} "
            "key-value heads); pass config= with the model's own sizes and heads"
        )


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name, executing nothing of the file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give the .pt file of the original model")
    try:
        content = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except Exception as error:  # damage and attacks surface as almost any exception
        raise ValueError(
            f"{path} is no plain state dict ({type(error).__name__}): it is damaged or holds code, "
            "and none was run; take the .pt file from its source again"
        ) from None
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and _is_plain(tensor) for name, tensor in content.items()
    ):
        raise ValueError(
            f"{path} holds a {type(content).__name__} that is no state dict of DimensionGPT: take "
            "the .pt file that the original trainer saved"
        )
    return content


def _is_plain(value: object) -> bool:
    """Say whether a value is a tensor with its numbers in memory, not sparse and not empty."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
