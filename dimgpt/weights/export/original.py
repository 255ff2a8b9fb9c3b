"""A model as the original DimensionGPT saves it: a bare state dict, and `vocab.txt` beside it.

Sizes are not in such a file: its notebooks read them from their own constants. What those cannot
say is refused: other norms, positions or feed-forwards, biases, an output layer of its own.
"""

from pathlib import Path

import torch

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.card import Usage
from dimgpt.weights.export.llama import is_llama

_VOCABULARY_NAME, _WEIGHTS_NAME = "vocab.txt", "model.pt"
_THEIR_NAMES = {
    "attention_norm": "norm_1",
    "ffn_norm": "norm_2",
    "attention.output": "attention.projection",
    "feed_forward.gate": "feed_forward.linear_1",
    "feed_forward.up": "feed_forward.linear_2",
    "feed_forward.down": "feed_forward.linear_3",
}
_FIXED = (
    "norm",
    "positions",
    "feed_forward",
    "use_biases",
    "use_final_norm",
    "tie_embeddings",
    "norm_eps",
    "rope_theta",
)
_SIZES = ("context_length", "window_size", "num_heads", "num_kv_heads")
_USAGE = f"""Copy `{_WEIGHTS_NAME}` to `models/` and `{_VOCABULARY_NAME}` to `data/` of the original
DimensionGPT, set the sizes above in its settings, and run its `testing.ipynb`."""


def write_original(model: Transformer, tokenizer: Tokenizer, folder: Path) -> Usage:
    """Write weights and vocabulary into an empty folder.

    Raises:
        ValueError: The model has parts that the original does not have, or another tokenizer.
    """
    _require_original(model.config)
    if tokenizer.file_name != _VOCABULARY_NAME:
        raise ValueError(
            f"the model's tokenizer is a {tokenizer.file_name}: the original DimensionGPT reads a "
            "vocab.txt only; export with --to transformers, gguf or safetensors"
        )
    tensors = {
        _rename(name): tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in model.state_dict().items()
    }
    tensors["final_linear.weight"] = tensors["token_embedding.weight"]  # one storage
    torch.save(tensors, folder / _WEIGHTS_NAME)
    tokenizer.save(folder / _VOCABULARY_NAME)
    return Usage(text=f"{_USAGE} dimgpt takes the two over with\n`{_import_line(model.config)}`.")


def _import_line(config: ModelConfig) -> str:
    """Return the command that imports the file, with the sizes that it does not show."""
    published = ModelConfig()
    sizes = {name: getattr(config, name) for name in _SIZES}
    sizes["window_size"] = sizes["window_size"] or config.context_length
    words = [
        f"--{name.replace('_', '-')} {size}"
        for name, size in sizes.items()
        if size != getattr(published, name)
    ]
    return " ".join([f"python -m dimgpt import {_WEIGHTS_NAME}", *words])


def _require_original(config: ModelConfig) -> None:
    published = ModelConfig()
    reasons = [
        f"{name} is {getattr(config, name)!r}, not {getattr(published, name)!r}"
        for name in _FIXED
        if getattr(config, name) != getattr(published, name)
    ]
    if reasons:
        others = "transformers, gguf or safetensors" if is_llama(config) else "safetensors"
        raise ValueError(
            f"the original DimensionGPT has no such model: {', '.join(reasons)}; export with --to "
            f"{others}"
        )


def _rename(name: str) -> str:
    for ours, theirs in _THEIR_NAMES.items():
        name = name.replace(f".{ours}.", f".{theirs}.")
    return name
