"""A model as one GGUF file, for llama.cpp and programs based on it.

The architecture `llama` of GGUF rotates neighbouring pairs of channels as dimgpt does, so no weight
is reordered. With `qk_norm` it is `qwen3`, which rotates halves as `transformers` does. Neither has
a window, so the file declares a context of window + 1 tokens: up to there every position sees all
earlier tokens in both programs. Matrices get the requested precision, norms stay float32. Blocks of
32 weights need an `ffn_dim` that is a multiple of 32; it is padded with zeros, which change no
result.

Byte-level BPE is the same as GPT-2's there. llama.cpp has no greedy longest match, which a
vocabulary of DimensionGPT needs: its WordPiece drops accents and capitals, its RWKV tokenizer never
ends on characters outside the vocabulary, and the others merge pairs. Its unigram tokenizer is the
nearest: it cleans by a table, and with scores that favour few and long tokens it splits most words
as in training, but not all. Decoding is exact; for exact ids, encode the text with dimgpt.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from dimgpt.config import ExportDtype, ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.text.byte_level import ByteLevelTokenizer
from dimgpt.text.chat_template import chat_template
from dimgpt.text.cleaning import restore_text
from dimgpt.text.special_tokens import NEW_LINE, SPECIAL_TOKENS, TAB
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.card import Usage
from dimgpt.weights.export.charsmap import cleaning_charsmap
from dimgpt.weights.huggingface import halves_from_pairs, reorder_heads
from dimgpt.weights.layout import Layout

Entries = dict[str, Any]
"""Key of a GGUF file -> value."""

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
        "attention.query_norm": "attn_q_norm",
        "attention.key_norm": "attn_k_norm",
        "attention.value": "attn_v",
        "attention.output": "attn_output",
        "feed_forward.gate": "ffn_gate",
        "feed_forward.up": "ffn_up",
        "feed_forward.down": "ffn_down",
    },
)
_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3
_SPACE = "▁"  # a space in unigram tokens
_LENGTH_BONUS = 0.01 / 16  # times the squared length: fewest tokens first, then the most uneven
_WINDOW_NOTE = (
    "llama.cpp has no sliding window for this architecture: results are exact up to {} tokens, not "
    "up to the {} of the model; do not raise the context."
)
_GREEDY_NOTE = (
    "llama.cpp has no greedy longest-match tokenizer: it splits some words otherwise than in "
    "training, which costs quality. Of 40 real French sentences it split 20, 12 and 34 as dimgpt "
    "does, with vocabularies of 1,000, 8,000 and 32,000 tokens. For exact results pass token ids "
    "that dimgpt's tokenizer made."
)
_FIRST_SPACE_NOTE = (
    "llama.cpp puts no space before a text, which this tokenizer was trained with: begin prompts "
    "with a space."
)


def write_gguf(
    model: Transformer, tokenizer: Tokenizer, folder: Path, *, name: str, dtype: ExportDtype
) -> Usage:
    """Write the file into an empty folder, and read it back.

    Raises:
        ImportError: The package `gguf` is not installed.
        ValueError: The widths do not fit blocks of 32, or GGUF does not support the tokenizer's way
            of splitting words.
        OSError: The tensors that were read back differ.
    """
    try:
        import gguf
    except ImportError as error:
        raise ImportError(
            "writing GGUF files needs the package gguf: pip install gguf==0.19.0"
        ) from error
    config = model.config
    architecture = "qwen3" if config.qk_norm else "llama"
    if dtype == "q8_0" and config.embedding_dim % _BLOCK:
        raise ValueError(
            f"embedding_dim is {config.embedding_dim}: q8_0 stores blocks of {_BLOCK} weights, so "
            f"it must be a multiple of {_BLOCK}; export with --dtype f16"
        )
    path = folder / f"{name}-{dtype}.gguf"
    tokenizer_part, notes = _tokenizer_entries(tokenizer)
    file_type = f"{'ALL' if dtype == 'f32' else 'MOSTLY'}_{dtype.upper()}"
    entries = {
        "general.name": name,
        "general.file_type": int(gguf.LlamaFileType[file_type]),
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
        **{f"{architecture}.{key}": value for key, value in _shape_entries(config, dtype).items()},
        **tokenizer_part,
    }
    tensors = {
        _LAYOUT.theirs(ours): _stored(gguf, tensor, ours, config, dtype)
        for ours, tensor in model.state_dict().items()
    }
    _write_file(gguf, path, architecture, entries, tensors)
    context = exact_context_length(config)
    if context < config.context_length:
        notes = (_WINDOW_NOTE.format(context, config.context_length), *notes)
    usage = f'```shell\nllama-cli -m {path.name} -c {context} -p "…"\n```'
    return Usage(text=usage, notes=notes, tags=("gguf",))


def exact_context_length(config: ModelConfig) -> int:
    """Return the longest context in which a copy of the model without windows is still exact."""
    windows = (window + 1 for window in config.windows if window is not None)
    return min((config.context_length, *windows))


def _shape_entries(config: ModelConfig, dtype: ExportDtype) -> Entries:
    return {
        "vocab_size": config.vocab_size,
        "context_length": exact_context_length(config),
        "embedding_length": config.embedding_dim,
        "block_count": config.num_layers,
        "feed_forward_length": config.ffn_dim + _missing(config.ffn_dim, dtype),
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": config.rope_theta,
    }


def _write_file(
    gguf: Any,
    path: Path,
    architecture: str,
    entries: Entries,
    tensors: dict[str, tuple[np.ndarray, Any]],
) -> None:
    """Write entries in the types that llama.cpp expects, and tensors; read the tensors back."""
    writer = gguf.GGUFWriter(path, architecture)
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
    """Return how many zeros fill the last block."""
    return -width % _BLOCK if dtype == "q8_0" else 0


def _stored(
    gguf: Any, tensor: Tensor, name: str, config: ModelConfig, dtype: ExportDtype
) -> tuple[np.ndarray, Any]:
    """Return a tensor's numbers or blocks as stored in the file, and their type."""
    tensor = tensor.detach().cpu().float()
    if config.qk_norm:
        tensor = reorder_heads(name, tensor, config, halves_from_pairs)
    if name.endswith(("feed_forward.gate.weight", "feed_forward.up.weight")):
        tensor = F.pad(tensor, (0, 0, 0, _missing(tensor.shape[0], dtype)))
    elif name.endswith("feed_forward.down.weight"):
        tensor = F.pad(tensor, (0, _missing(tensor.shape[1], dtype)))
    kind = gguf.GGMLQuantizationType["F32" if tensor.dim() == 1 else dtype.upper()]
    return gguf.quants.quantize(tensor.contiguous().numpy(), kind), kind


def _tokenizer_entries(tokenizer: Tokenizer) -> tuple[Entries, tuple[str, ...]]:
    """Return the entries of a tokenizer, and its differences in llama.cpp, a sentence each."""
    if isinstance(tokenizer, ByteLevelTokenizer):
        entries, notes = _byte_level_entries(tokenizer)
    else:
        entries, notes = _greedy_entries(tokenizer.tokens), (_GREEDY_NOTE,)
    special_tokens = tokenizer.special_tokens
    start = special_tokens.start_of_text
    ids = {
        "bos": special_tokens.end_of_text if start is None else start,
        "eos": special_tokens.end_of_text,
        "eot": next((id for id in tokenizer.stops if id != special_tokens.end_of_text), None),
        "unknown": special_tokens.unknown,
        "padding": special_tokens.padding,
    }
    entries |= {f"tokenizer.ggml.{name}_token_id": id for name, id in ids.items() if id is not None}
    entries["tokenizer.ggml.add_bos_token"] = start is not None
    entries["tokenizer.ggml.add_eos_token"] = False
    if tokenizer.chat_format is not None:
        template = chat_template(tokenizer.chat_format, first_space=_FIRST_SPACE_NOTE in notes)
        for mark in ("{% generation %}", "{% endgeneration %}"):  # for training only
            template = template.replace(mark, "")
        entries["tokenizer.chat_template"] = template
    return entries, notes


def _greedy_entries(tokens: Sequence[str]) -> Entries:
    spelled = {TAB: "\t", NEW_LINE: "\n"}
    types = [_NORMAL if token in spelled else _CONTROL for token in SPECIAL_TOKENS]
    types[0] = _UNKNOWN
    texts = [restore_text(token).replace(" ", _SPACE) for token in tokens[len(SPECIAL_TOKENS) :]]
    return {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [*(spelled.get(token, token) for token in SPECIAL_TOKENS), *texts],
        "tokenizer.ggml.scores": [-1.0 + _LENGTH_BONUS * len(token) ** 2 for token in tokens],
        "tokenizer.ggml.token_type": types + [_NORMAL] * len(texts),
        "tokenizer.ggml.precompiled_charsmap": cleaning_charsmap(),
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.remove_extra_whitespaces": False,
    }


def _byte_level_entries(tokenizer: ByteLevelTokenizer) -> tuple[Entries, tuple[str, ...]]:
    description = json.loads(tokenizer.to_bytes())
    pre_tokenizer = description["pre_tokenizer"] or {}
    if pre_tokenizer.get("type") != "ByteLevel" or not pre_tokenizer.get("use_regex", True):
        raise ValueError(
            f"the tokenizer splits words with {pre_tokenizer.get('type')}: GGUF export supports "
            "only the splitting of GPT-2; export with --to transformers"
        )
    special = {token["id"] for token in description["added_tokens"] if token["special"]}
    merges = description["model"]["merges"]
    entries = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": list(tokenizer.tokens),
        "tokenizer.ggml.token_type": [
            _CONTROL if id in special else _NORMAL for id in range(tokenizer.vocab_size)
        ],
        "tokenizer.ggml.merges": [
            merge if isinstance(merge, str) else " ".join(merge) for merge in merges
        ],
    }
    has_first_space = pre_tokenizer.get("add_prefix_space", False)
    return entries, (_FIRST_SPACE_NOTE,) if has_first_space else ()
