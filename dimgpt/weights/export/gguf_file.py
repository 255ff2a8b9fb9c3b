"""A model as one GGUF file, which llama.cpp and what is built on it run.

Its architecture `llama` rotates neighbouring pairs of channels as ours does, so that no weight is
reordered. It has no window, so the file names a context of window + 1 tokens: up to there every
position sees all tokens before it in either program. Matrices get the precision that was asked for,
norms stay float32. Blocks of 32 weights need an `ffn_dim` that is a multiple of 32; zeros that fill
it up change no result. `gguf_tokenizer.py` writes the tokenizer.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from dimgpt.config import ExportDtype, ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.card import Usage
from dimgpt.weights.export.gguf_tokenizer import Entries, tokenizer_entries
from dimgpt.weights.layout import Layout

_BLOCK = 32
_LAYOUT = Layout(
    system="llama.cpp",
    blocks="blk",
    names={
        "token_embedding": "token_embd",
        "final_norm": "output_norm",
        "output_weight": "output.weight",
        "attention_norm": "attn_norm",
        "attention.query": "attn_q",
        "attention.key": "attn_k",
        "attention.value": "attn_v",
        "attention.output": "attn_output",
        "feed_forward.gate": "ffn_gate",
        "feed_forward.up": "ffn_up",
        "feed_forward.down": "ffn_down",
    },
)
_FILE_TYPES = {
    "f32": "ALL_F32",
    "f16": "MOSTLY_F16",
    "bf16": "MOSTLY_BF16",
    "q8_0": "MOSTLY_Q8_0",
}


def write_gguf(
    model: Transformer, tokenizer: Tokenizer, folder: Path, *, name: str, dtype: ExportDtype
) -> Usage:
    """Write the file of a Llama or Mistral into an empty folder, and read it back.

    Raises:
        ImportError: The package `gguf` is not installed.
        ValueError: The widths do not fit blocks of 32.
        OSError: What was read back is not what was written.
    """
    gguf, config = _import_gguf(), model.config
    if dtype == "q8_0" and config.embedding_dim % _BLOCK:
        raise ValueError(
            f"embedding_dim is {config.embedding_dim}: q8_0 stores blocks of {_BLOCK} weights, so "
            "it must be a multiple; export with --dtype f16"
        )
    path = folder / f"{name}-{dtype}.gguf"
    tokenizer_part, notes = tokenizer_entries(tokenizer)
    entries = {
        "general.name": name,
        "general.file_type": int(gguf.LlamaFileType[_FILE_TYPES[dtype]]),
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
        **_shape_entries(config, dtype),
        **tokenizer_part,
    }
    tensors = {
        _LAYOUT.theirs(ours): _stored(gguf, tensor, ours, dtype)
        for ours, tensor in model.state_dict().items()
    }
    _write_file(gguf, path, entries, tensors)
    context = exact_context_length(config)
    if context < config.context_length:
        notes = (
            "llama.cpp has no sliding window for this architecture: results are exact up to "
            f"{context} tokens, not up to the {config.context_length} of the model; do not raise "
            "the context.",
            *notes,
        )
    usage = f'```shell\nllama-cli -m {path.name} -c {context} -p "…"\n```'
    return Usage(text=usage, notes=notes, tags=("gguf",))


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


def _write_file(
    gguf: Any, path: Path, entries: Entries, tensors: dict[str, tuple[np.ndarray, Any]]
) -> None:
    """Write entries in the types that llama.cpp expects, and tensors; read the tensors back."""
    writer = gguf.GGUFWriter(path, "llama")
    adders: dict[type, Any] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
    }
    for key, value in entries.items():
        adders.get(type(value), writer.add_array)(key, value)
    for name, (data, kind) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    if found.keys() != tensors.keys():
        raise OSError(f"{path} does not hold the tensors that were written: check the disk")
    for name, (data, kind) in tensors.items():
        if found[name].tensor_type != kind or not np.array_equal(found[name].data, data):
            raise OSError(f"{path} does not hold {name} as it was written: check the disk")


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


def _import_gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise ImportError(
            "writing GGUF files needs the package gguf: pip install gguf==0.19.0"
        ) from error
    return gguf
