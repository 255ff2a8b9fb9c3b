"""A model as one GGUF file, which llama.cpp and what is built on it run.

Its architecture `llama` turns neighbouring pairs of channels as ours does, so that no weight is
reordered. It has no window: up to window + 1 tokens every position sees all before it anyway, and
that is the context that the file names. Matrices get the precision that was asked for, norms stay
float32; blocks of 32 weights need an `ffn_dim` that is a multiple of 32, and zeros added to it
change nothing. What tokenizer the file holds is `gguf_tokenizer.py`'s matter.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from dimgpt.config import ExportDtype, ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.card import Card, Usage
from dimgpt.weights.export.gguf_tokenizer import Entries, tokenizer_entries
from dimgpt.weights.export.llama import GGUF_NAMES, rename_to, require_llama

_BLOCK = 32
_FILE_TYPES = {
    "f32": "ALL_F32",
    "f16": "MOSTLY_F16",
    "bf16": "MOSTLY_BF16",
    "q8_0": "MOSTLY_Q8_0",
}


def write_gguf(
    model: Transformer, tokenizer: Tokenizer, folder: Path, *, card: Card, dtype: ExportDtype
) -> Usage:
    """Write the file into an empty folder, and read it back.

    Raises:
        ImportError: The package `gguf` is not installed.
        ValueError: llama.cpp has no such model, or the widths do not fit blocks of 32.
        OSError: What was read back is not what was written.
    """
    gguf = _import_gguf()
    config = model.config
    require_llama(config, target="llama.cpp")
    if dtype == "q8_0" and config.embedding_dim % _BLOCK:
        raise ValueError(
            f"embedding_dim is {config.embedding_dim}: q8_0 stores blocks of {_BLOCK} weights, so "
            "it must be a multiple; export with --dtype f16"
        )
    entries, notes = tokenizer_entries(tokenizer)
    path = folder / f"{card.name}-{dtype}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(card.name)
    writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[dtype]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for key, value in {**_shape_entries(config, dtype), **entries}.items():
        _add(writer, key, value)
    for name, tensor in model.state_dict().items():
        data, kind = _stored(gguf, tensor, name, dtype)
        writer.add_tensor(rename_to(GGUF_NAMES, name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _require_written(gguf, path, model, dtype)
    context = exact_context_length(config)
    usage = f'```shell\nllama-cli -m {path.name} -c {context} -p "…"\n```'
    return Usage(text=usage, notes=(*_notes(config), *notes), tags=("gguf",))


def exact_context_length(config: ModelConfig) -> int:
    """Return how many tokens a model without a window reads as this one does."""
    if config.window_size is None:
        return config.context_length
    return min(config.context_length, config.window_size + 1)


def _shape_entries(config: ModelConfig, dtype: ExportDtype) -> Entries:
    return {
        "llama.vocab_size": config.vocab_size,
        "llama.context_length": exact_context_length(config),
        "llama.embedding_length": config.embedding_dim,
        "llama.block_count": config.num_layers,
        "llama.feed_forward_length": config.ffn_dim + _missing(config.ffn_dim, dtype),
        "llama.attention.head_count": config.num_heads,
        "llama.attention.head_count_kv": config.num_kv_heads,
        "llama.attention.key_length": config.head_dim,
        "llama.attention.value_length": config.head_dim,
        "llama.attention.layer_norm_rms_epsilon": config.norm_eps,
        "llama.rope.dimension_count": config.head_dim,
        "llama.rope.freq_base": config.rope_theta,
    }


def _add(writer: Any, key: str, value: Any) -> None:
    """Write an entry in the type that llama.cpp expects."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _missing(width: int, dtype: ExportDtype) -> int:
    """Return how many zeros fill up the last block."""
    return -width % _BLOCK if dtype == "q8_0" else 0


def _stored(gguf: Any, tensor: Tensor, name: str, dtype: ExportDtype) -> tuple[np.ndarray, Any]:
    """Return a tensor's numbers or blocks as the file holds them, and their type."""
    tensor = tensor.detach().cpu().float()
    if name.endswith(("feed_forward.gate.weight", "feed_forward.up.weight")):
        tensor = F.pad(tensor, (0, 0, 0, _missing(tensor.shape[0], dtype)))
    elif name.endswith("feed_forward.down.weight"):
        tensor = F.pad(tensor, (0, _missing(tensor.shape[1], dtype)))
    numbers = tensor.contiguous().numpy()
    kinds = gguf.GGMLQuantizationType
    if tensor.dim() == 1 or dtype == "f32":
        return numbers, kinds.F32
    if dtype == "f16":
        return numbers.astype(np.float16), kinds.F16
    kind = kinds[dtype.upper()]
    return gguf.quants.quantize(numbers, kind), kind


def _require_written(gguf: Any, path: Path, model: Transformer, dtype: ExportDtype) -> None:
    """Compare the file with the model, tensor by tensor."""
    written = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    for name, tensor in model.state_dict().items():
        data, kind = _stored(gguf, tensor, name, dtype)
        found = written.pop(rename_to(GGUF_NAMES, name), None)
        if found is None or found.tensor_type != kind or not np.array_equal(found.data, data):
            raise OSError(f"{path} does not hold {name} as it was written: check the disk")
    if written:
        raise OSError(f"{path} holds unknown tensors ({', '.join(written)}): check the disk")


def _notes(config: ModelConfig) -> tuple[str, ...]:
    if config.window_size is None or config.window_size + 1 >= config.context_length:
        return ()
    return (
        f"llama.cpp has no sliding window for this architecture: results are exact up to "
        f"{exact_context_length(config)} tokens, not up to the {config.context_length} of the "
        "model; do not raise the context.",
    )


def _import_gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise ImportError(
            "writing GGUF files needs the package gguf: pip install gguf==0.19.0"
        ) from error
    return gguf
