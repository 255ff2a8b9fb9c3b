"""Weights of Llama's and Mistral's shape in a folder of the Hugging Face hub.

config.json and safetensors files, one or several, are read without the `transformers` package; a
setting that our transformer cannot follow is refused by its name. Their queries and keys turn
channel i with i + D / 2, ours turns neighbours: the rows of those matrices are put in our order.
Tokenizers are not read here, pickled weights (`pytorch_model.bin`) not at all.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.weights.found import describe, list_names
from dimgpt.weights.layout import Layout, assemble, without_output
from dimgpt.weights.stored_settings import number, switch, whole_number

CONFIG_NAME = "config.json"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_MAX_JSON = 2**26  # bytes
_OUTPUT, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_DTYPES = {"F32", "F16", "BF16"}
_DEFAULTS = {  # of transformers, for what a config.json leaves out
    "llama": {"max_position_embeddings": 2_048},
    "mistral": {"max_position_embeddings": 131_072, "num_key_value_heads": 8},
}
_ONLY = {  # the one value, of those that a setting can have, that our transformer follows
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
    "rope_scaling": None,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}
_INSIDE = {
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "feed_forward.gate",
    "mlp.up_proj": "feed_forward.up",
    "mlp.down_proj": "feed_forward.down",
}
TIED_LAYOUT = Layout(
    system="Llama or Mistral",
    blocks="model.layers",
    outside={_EMBEDDING: "token_embedding.weight", "model.norm.weight": "final_norm.weight"},
    inside={f"{theirs}.weight": f"{ours}.weight" for theirs, ours in _INSIDE.items()},
)
_UNTIED_LAYOUT = Layout(
    system=TIED_LAYOUT.system,
    blocks=TIED_LAYOUT.blocks,
    outside={**TIED_LAYOUT.outside, _OUTPUT: "output_weight"},
    inside=TIED_LAYOUT.inside,
)


def load_huggingface(folder: Path, *, context_length: int | None = None) -> Transformer:
    """Load a folder of Llama's or Mistral's shape, in evaluation mode, on the CPU, as float32.

    Args:
        folder: With config.json and model.safetensors, or the files of its index.
        context_length: At most so many positions; `None` takes all that the config allows.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged, the config asks for what our transformer does not have, or
            the tensors are not those of the config.
    """
    settings = read_json(folder / CONFIG_NAME)
    source = str(folder / CONFIG_NAME)
    _require_shape(settings, source=source)
    config = _config_of(settings, context_length, source=source)
    tensors = _read_tensors(folder)
    layout = TIED_LAYOUT if config.tie_embeddings else _UNTIED_LAYOUT
    if config.tie_embeddings and _OUTPUT in tensors:
        tensors = without_output(
            tensors, output=_OUTPUT, embedding=_EMBEDDING, layout=layout, source=str(folder)
        )
    model = assemble(tensors, config, layout, source=str(folder))
    num_heads = {
        "attention.query.weight": config.num_heads,
        "attention.key.weight": config.num_kv_heads,
    }
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if (kind := name.split(".", 2)[-1]) in num_heads:
                weight.copy_(pairs_from_halves(weight, num_heads[kind]))
    return model


def is_huggingface(folder: Path) -> bool:
    """Say whether a folder has a config.json that names a kind of model, ours or not."""
    try:
        return "model_type" in read_json(folder / CONFIG_NAME)
    except (OSError, ValueError):
        return False


def pairs_from_halves(weight: Tensor, num_heads: int) -> Tensor:
    """Put the rows of each head (H * D, C) so that channels i and i + D / 2 become neighbours."""
    return weight.unflatten(0, (num_heads, 2, -1)).transpose(1, 2).reshape(weight.shape)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of moderate size.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: copy the whole folder from its source")
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ValueError("too large")
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object: copy it from its source again")
    return content


def _require_shape(settings: Mapping[str, Any], *, source: str) -> None:
    """Refuse, by name, everything that our transformer does not have."""
    kind = settings.get("model_type")
    if not isinstance(kind, str) or kind not in _DEFAULTS:
        raise ValueError(
            f"{source}: model_type is {ascii(kind)[:60]}: llama and mistral can be opened here"
        )
    rope = _rope(settings, source=source)
    asked = {
        **{name: settings.get(name, only) for name, only in _ONLY.items()},
        "rope_type": rope.get("rope_type", rope.get("type", "default")),
    }
    if rope is settings.get("rope_scaling"):
        asked["rope_scaling"] = None  # what it asks for is the rope_type
    problems = [
        f"{name} is {ascii(value)[:60]} (ours: {wanted!r})"
        for name, value in asked.items()
        if value != (wanted := _ONLY.get(name, "default"))
    ]
    if kind == "llama" and settings.get("sliding_window") is not None:
        problems.append("sliding_window is set, which Llama does not have")
    layers = settings.get("layer_types")
    if isinstance(layers, list) and len({str(layer) for layer in layers}) > 1:
        problems.append("layer_types differ from layer to layer")
    if problems:
        raise ValueError(f"{source} asks for what this model does not do: {', '.join(problems)}")


def _config_of(
    settings: Mapping[str, Any], context_length: int | None, *, source: str
) -> ModelConfig:
    defaults = _DEFAULTS[settings["model_type"]]

    def size(name: str, default: int | None = None) -> int:
        return whole_number(settings, name, defaults.get(name, default), source=source)

    dim, num_heads, longest = (
        size("hidden_size"),
        size("num_attention_heads"),
        size("max_position_embeddings"),
    )
    if (head_dim := size("head_dim", max(1, dim // num_heads))) * num_heads != dim:
        raise ValueError(
            f"{source}: head_dim is {head_dim}: here it must be hidden_size / num_attention_heads "
            f"({dim} / {num_heads})"
        )
    if context_length is not None and not 0 < context_length <= longest:
        raise ValueError(f"context_length is {context_length}: it must lie in 1..{longest}")
    is_mistral = settings["model_type"] == "mistral"
    window = settings.get("sliding_window", 4_096 if is_mistral else None)
    rope = {**settings, **_rope(settings, source=source)}
    try:
        return ModelConfig(
            vocab_size=size("vocab_size"),
            context_length=context_length or longest,
            # Theirs counts the current token.
            window_size=None if window is None else size("sliding_window", 4_096) - 1,
            embedding_dim=dim,
            num_layers=size("num_hidden_layers"),
            num_heads=num_heads,
            num_kv_heads=size("num_key_value_heads", num_heads),
            ffn_dim=size("intermediate_size"),
            norm_eps=number(settings, "rms_norm_eps", 1e-6, source=source),
            rope_theta=number(rope, "rope_theta", 10_000.0, source=source),
            tie_embeddings=switch(settings, "tie_word_embeddings", source=source),
        )
    except ValueError as error:
        raise ValueError(f"{source} describes no model that can be built here: {error}") from None


def _rope(settings: Mapping[str, Any], *, source: str) -> Mapping[str, Any]:
    """Return what newer configs say of rotary positions in one place, older ones in another."""
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    if not isinstance(rope, dict) or any(isinstance(part, dict) for part in rope.values()):
        raise ValueError(f"{source}: the rotary positions are described by {ascii(rope)[:60]}")
    return rope


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder, each from the file where the index says it is."""
    index_path = folder / _INDEX
    if (folder / _WEIGHTS).is_file() or not index_path.is_file():
        return _read_safetensors(folder / _WEIGHTS)
    places = read_json(index_path).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ValueError(f"{index_path} has no weight_map: copy it from its source again")
    names = sorted(set(places.values()))
    bad = [name for name in names if not name.endswith(".safetensors") or set(name) & set("/\\:")]
    if bad:
        raise ValueError(f"{index_path} leads out of its folder: {list_names(bad)}")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {list_names(missing)}: download the rest")
    tensors: dict[str, Tensor] = {}
    for name in names:
        for tensor_name, tensor in _read_safetensors(folder / name).items():
            if places.get(tensor_name) != name:
                raise ValueError(
                    f"{folder / name} holds {list_names([tensor_name])}, which is not where "
                    f"{_INDEX} says; take all files of one model"
                )
            tensors[tensor_name] = tensor
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing in {describe(path.parent)}: copy the whole folder; pickled weights "
            "(.bin) are not read"
        )
    tensors: dict[str, Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                if (dtype := file.get_slice(name).get_dtype()) not in _DTYPES:
                    raise ValueError(f"{list_names([name])} is stored as {dtype}, not as a float")
                if not name.endswith(".rotary_emb.inv_freq"):  # older files repeat it; computed
                    tensors[name] = file.get_tensor(name)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        what = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} ({describe(path)}) cannot be read: {what}") from None
    return tensors
