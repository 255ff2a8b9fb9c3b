"""Weights in the shape of Llama, Mistral or Qwen 3, in a folder of the Hugging Face hub.

Reads config.json and safetensors files without the `transformers` package, and refuses settings
that dimgpt's transformer does not support. Their rotary positions rotate channels i and i + D / 2
together, dimgpt's 2i and 2i + 1. So the rows of the query and key matrices are reordered, and with
them the weights that normalise queries and keys.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dimgpt.config import AttentionSpan, ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.weights.foreign_files import (
    describe,
    list_names,
    read_json,
    read_safetensors,
    read_setting,
)
from dimgpt.weights.layout import Layout, build_model, without_output

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_INDEX = "model.safetensors.index.json"
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_DEFAULTS: dict[str, dict[str, Any]] = {  # of transformers, for settings that are missing
    "llama": {"max_position_embeddings": 2_048},
    "mistral": {
        "max_position_embeddings": 131_072,
        "num_key_value_heads": 8,
        "sliding_window": 4_096,
    },
    "qwen3": {
        "max_position_embeddings": 32_768,
        "num_key_value_heads": 32,
        "head_dim": 128,
        "use_sliding_window": False,
        "sliding_window": 4_096,
    },
}
SPANS: dict[str, AttentionSpan] = {"full_attention": "full", "sliding_attention": "window"}
_LONGEST_PATTERN = 64  # longest repeated pattern of layers that is searched for
_ONLY = {  # the only supported value of each setting
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
    "rope_type": "default",
    "rope_scaling": None,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}
LLAMA = Layout(
    system="Llama, Mistral or Qwen3",
    blocks="model.layers",
    names={
        "token_embedding": "model.embed_tokens",
        "final_norm": "model.norm",
        "output_weight": "lm_head.weight",
        "attention_norm": "input_layernorm",
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.query_norm": "self_attn.q_norm",
        "attention.key_norm": "self_attn.k_norm",
        "attention.value": "self_attn.v_proj",
        "attention.output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "feed_forward.gate": "mlp.gate_proj",
        "feed_forward.up": "mlp.up_proj",
        "feed_forward.down": "mlp.down_proj",
    },
)


def load_huggingface(folder: Path, *, context_length: int | None = None) -> Transformer:
    """Load a Llama, Mistral or Qwen 3, in evaluation mode, on the CPU, as float32.

    Args:
        folder: With config.json, and model.safetensors or the files of its index.
        context_length: Positions to keep; `None` keeps all that the config allows.

    Raises:
        FileNotFoundError, ValueError: A file is missing or damaged, or the config has a setting
            that dimgpt does not support.
    """
    settings = read_json(folder / _CONFIG)
    try:
        config = _config_of(settings, context_length)
    except ValueError as error:
        raise ValueError(f"{folder / _CONFIG} cannot be opened: {error}") from None
    source, tensors = str(folder), _read_tensors(folder)
    if config.tie_embeddings and LLAMA.theirs("output_weight") in tensors:
        tensors = without_output(tensors, LLAMA, source=source)
    model = build_model(config, tensors, layout=LLAMA, source=source)
    for name, weight in model.state_dict().items():
        weight.copy_(reorder_heads(name, weight, config, pairs_from_halves))
    return model


def reorder_heads(
    name: str, weight: Tensor, config: ModelConfig, order: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Reorder the rows of a weight of queries or keys; return any other weight unchanged.

    `order` is `pairs_from_halves` or `halves_from_pairs`.
    """
    num_heads = {
        "query.weight": config.num_heads,
        "key.weight": config.num_kv_heads,
        "query_norm.weight": 1,  # the same for every head
        "key_norm.weight": 1,
    }.get(name.rpartition("attention.")[2])
    return weight if num_heads is None else order(weight, num_heads)


def unstack_experts(name: str, weight: Tensor) -> dict[str, Tensor]:
    """Return a router or a stack of experts under Mixtral's names; empty for other tensors."""
    found = re.fullmatch(r"blocks\.(\d+)\.feed_forward\.(router|gate|up|down)\.weight", name)
    if found is None:
        return {}
    prefix = f"{LLAMA.blocks}.{found[1]}.block_sparse_moe"
    if found[2] == "router":
        return {f"{prefix}.gate.weight": weight}
    kind = {"gate": "w1", "down": "w2", "up": "w3"}[found[2]]
    return {f"{prefix}.experts.{number}.{kind}.weight": w for number, w in enumerate(weight)}


def pairs_from_halves(weight: Tensor, num_heads: int) -> Tensor:
    """Reorder the rows of each head so that channels i and i + D / 2 become neighbours.

    Args:
        weight: A matrix (H * D, C), or the weight (D,) of a norm.
        num_heads: H, 1 for a norm.
    """
    return weight.unflatten(0, (num_heads, 2, -1)).transpose(1, 2).reshape(weight.shape)


def halves_from_pairs(weight: Tensor, num_heads: int) -> Tensor:
    """Undo `pairs_from_halves`: the rows of each head become (0, 2, 4, …, 1, 3, 5, …)."""
    return weight.unflatten(0, (num_heads, -1, 2)).transpose(1, 2).reshape(weight.shape)


def _config_of(theirs: Mapping[str, Any], context_length: int | None) -> ModelConfig:
    settings = _supported(theirs)

    def size(name: str, default: int | None = None) -> int:
        value: int = read_setting(settings, name, int, default)
        return value

    dim, num_heads = size("hidden_size"), size("num_attention_heads")
    longest = size("max_position_embeddings")
    if (head_dim := size("head_dim", max(1, dim // num_heads))) * num_heads != dim:
        raise ValueError(
            f"head_dim is {head_dim}: here it must be hidden_size / num_attention_heads "
            f"({dim} / {num_heads})"
        )
    if context_length is not None and not 0 < context_length <= longest:
        raise ValueError(f"context_length is {context_length}: it must lie in 1..{longest}")
    return ModelConfig(
        vocab_size=size("vocab_size"),
        context_length=context_length or longest,
        embedding_dim=dim,
        num_layers=size("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=size("num_key_value_heads", num_heads),
        ffn_dim=size("intermediate_size"),
        norm_eps=read_setting(settings, "rms_norm_eps", float, 1e-6),
        rope_theta=read_setting(settings, "rope_theta", float, 10_000.0),
        tie_embeddings=read_setting(settings, "tie_word_embeddings", bool, False),
        **_attention_of(settings, size("num_hidden_layers")),
    )


def _attention_of(settings: Mapping[str, Any], num_layers: int) -> dict[str, Any]:
    """Return the fields for windows and for norms of queries and keys."""
    is_qwen3 = settings["model_type"] == "qwen3"
    has_window = settings.get("sliding_window") is not None and (
        not is_qwen3 or read_setting(settings, "use_sliding_window", bool)
    )
    # Their window counts the current token.
    window = read_setting(settings, "sliding_window", int) - 1 if has_window else None
    fields: dict[str, Any] = {"window_size": window, "qk_norm": is_qwen3}
    layers = settings.get("layer_types")
    if not is_qwen3 or (layers is None and not has_window):
        return fields
    allowed = list(SPANS)[: 1 + has_window]
    if (
        not isinstance(layers, list)
        or len(layers) != num_layers
        or not all(layer in allowed for layer in layers)
    ):
        raise ValueError(
            f"layer_types is {ascii(layers)[:60]}: it must be a list of {num_layers} names, each "
            f"{' or '.join(allowed)}; save the folder with transformers again"
        )
    lengths = range(1, _LONGEST_PATTERN + 1)
    length = next((n for n in lengths if layers[n:] == layers[:-n]), num_layers)
    return {**fields, "attention_pattern": tuple(SPANS[layer] for layer in layers[:length])}


def _supported(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with defaults of missing ones; refuse unsupported settings."""
    kind = theirs.get("model_type")
    if not isinstance(kind, str) or kind not in _DEFAULTS:
        raise ValueError(
            f"model_type is {ascii(kind)[:60]}: llama, mistral and qwen3 can be opened here"
        )
    settings = {**_DEFAULTS[kind], **theirs}
    rope = settings.get("rope_parameters") or settings.pop("rope_scaling", None) or {}  # newer, old
    if not isinstance(rope, dict) or any(isinstance(part, dict) for part in rope.values()):
        raise ValueError(
            f"rope_parameters is {ascii(rope)[:60]}: it must be one dict for all layers"
        )
    settings |= {**rope, "rope_type": rope.get("rope_type", rope.get("type", "default"))}
    problems = [
        f"{name} is {ascii(value)[:60]} (ours: {only!r})"
        for name, only in _ONLY.items()
        if (value := settings.get(name, only)) != only
    ]
    if kind == "llama" and settings.get("sliding_window") is not None:
        problems.append("sliding_window is set, which Llama does not have")
    layers = settings.get("layer_types")
    is_mixed = isinstance(layers, list) and len({str(layer) for layer in layers}) > 1
    if kind != "qwen3" and is_mixed:
        problems.append("layer_types differ from layer to layer")
    if problems:
        raise ValueError(f"these settings are not supported: {', '.join(problems)}")
    return settings


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder, each from its file in the index."""
    index_path = folder / _INDEX
    if (folder / _WEIGHTS).is_file() or not index_path.is_file():
        return _read_file(folder / _WEIGHTS)
    places = read_json(index_path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ValueError(f"{index_path} has no weight_map: copy it from its source again")
    names = sorted(set(places.values()))
    bad = [name for name in names if not name.endswith(".safetensors") or set(name) & set("/\\:")]
    if bad:
        raise ValueError(
            f"{index_path} names files outside its folder, or not .safetensors: {list_names(bad)}; "
            "copy it from its source again"
        )
    tensors: dict[str, Tensor] = {}
    for name in names:
        for tensor_name, tensor in _read_file(folder / name).items():
            if places.get(tensor_name) != name:
                raise ValueError(
                    f"{folder / name} holds {list_names([tensor_name])}, which {_INDEX} does not "
                    "place there; take all files of one model"
                )
            tensors[tensor_name] = tensor
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing in {describe(path.parent)}: copy or download the complete folder; "
            "pickled weights (.bin) are not read"
        )
    tensors = read_safetensors(path)
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise ValueError(
                f"{path}: {list_names([name])} is stored as {tensor.dtype}: take a copy in "
                "float32, float16 or bfloat16"
            )
    # Older files repeat a table of the rotary positions, which is computed here.
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not name.endswith(".rotary_emb.inv_freq")
    }
