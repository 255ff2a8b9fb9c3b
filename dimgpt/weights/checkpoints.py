"""Checkpoints of DimensionGPT, lilLM and toyGPT: their names of tensors, and their settings.

lilLM saves a config beside the weights, Lightning saves toyGPT's settings. A bare state dict shows
only the sizes of its matrices; other sizes must be given, or are those of the published model.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.weights.checkpoint_file import read_checkpoint
from dimgpt.weights.foreign_files import list_names, read_setting
from dimgpt.weights.layout import Layout, build_model, sizes_in, without_output

CheckpointSystem = Literal["dimensiongpt", "lillm", "toygpt"]

_PARTS = ("query", "key", "value")
_FUSED = ("mha.attn_proj.0.weight", "mha.attn_proj.0.bias")
LAYOUTS: dict[CheckpointSystem, Layout] = {
    "dimensiongpt": Layout(
        system="DimensionGPT",
        names={
            "output_weight": "final_linear.weight",
            "attention_norm": "norm_1",
            "attention.output": "attention.projection",
            "ffn_norm": "norm_2",
            "feed_forward.gate": "feed_forward.linear_1",
            "feed_forward.up": "feed_forward.linear_2",
            "feed_forward.down": "feed_forward.linear_3",
        },
    ),
    "lillm": Layout(
        system="lilLM",
        blocks="transformer_blocks",
        names={
            "token_embedding": "tok_emb",
            "final_norm.weight": "norm.gain",
            "output_weight": "lm_head.weight",
            "attention_norm.weight": "attn_norm.gain",
            "attention.query": "attn.wq",
            "attention.key": "attn.wk",
            "attention.value": "attn.wv",
            "attention.output": "attn.wo",
            "ffn_norm.weight": "ffn_norm.gain",
            "feed_forward.gate": "ffn.w1",
            "feed_forward.up": "ffn.w3",
            "feed_forward.down": "ffn.w2",
        },
    ),
    "toygpt": Layout(
        system="toyGPT",
        blocks="transformers",
        names={
            "token_embedding": "embedding",
            "output_weight": "output_linear.weight",
            "output_bias": "output_linear.bias",
            "attention_norm": "input_norm",
            "attention.output": "mha.out_linear",
            "ffn_norm": "mha_lnorm",
            "feed_forward.up": "pw_ff.pwff.0",
            "feed_forward.down": "pw_ff.pwff.2",
        }
        # The file has one matrix for all parts; `_split_attention` gives them these names.
        | {
            f"attention.{part}.{name.rpartition('.')[2]}": f"{name}[{part}]"
            for part in _PARTS
            for name in _FUSED
        },
    ),
}
# Sizes that a checkpoint may lack: field of `ModelConfig` -> the system's own setting.
_GIVEN_NAMES: dict[CheckpointSystem, dict[str, str]] = {
    "dimensiongpt": {
        name: name for name in ("num_heads", "num_kv_heads", "window_size", "context_length")
    },
    "lillm": {"num_heads": "q_heads", "num_kv_heads": "kv_heads", "context_length": "max_seq_len"},
    "toygpt": {"num_heads": "n_head", "context_length": "block_size"},
}


def load_checkpoint(
    path: Path, config: ModelConfig | None, given: Mapping[str, int]
) -> tuple[CheckpointSystem, Transformer]:
    """Return the system that saved a checkpoint, and the model, in evaluation mode.

    Args:
        path: A checkpoint of one of the three systems, recognised by the name of its embedding.
        config: The sizes. `None` takes them from the settings in the file, its tensors, `given`,
            and last the published models.
        given: Sizes that the file does not contain, by their names in `ModelConfig`.

    Raises:
        FileNotFoundError, ValueError: As `read_checkpoint`; or tensors or settings are not those of
            a system, or contradict each other.
    """
    (tensors, settings), source = read_checkpoint(path), str(path)
    embedding = "token_embedding.weight"
    system = next((name for name in LAYOUTS if LAYOUTS[name].theirs(embedding) in tensors), None)
    if system is None:
        found = f"tensors {list_names(tensors)}" if tensors else "no tensors"
        raise ValueError(
            f"{path} has {found}: these are not the weights of DimensionGPT, lilLM or toyGPT; give "
            "a checkpoint of one of these"
        )
    layout = LAYOUTS[system]
    tensors = without_output(tensors, layout, source=source)
    if system == "toygpt":
        tensors = _split_attention(tensors)
    if config is None:
        shown = sizes_in(tensors, layout, source=source)
        try:
            settings = _add_given(settings, given, _GIVEN_NAMES[system])
            config = CONFIGS[system](settings, shown)
        except ValueError as error:
            raise ValueError(f"{path} cannot be opened: {error}") from None
    return system, build_model(config, tensors, layout=layout, source=source)


def _split_attention(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split each fused tensor into three, named after their part; keep others unchanged."""
    split: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_FUSED) and tensor.dim() and tensor.shape[0] % len(_PARTS) == 0:
            pieces = tensor.tensor_split(len(_PARTS))
            split |= {f"{name}[{part}]": piece for part, piece in zip(_PARTS, pieces, strict=True)}
        else:
            split[name] = tensor
    return split


def _add_given(
    settings: Mapping[str, Any], given: Mapping[str, int], names: Mapping[str, str]
) -> dict[str, Any]:
    """Return the settings with the given sizes, which may fill gaps but not contradict."""
    for name, value in given.items():
        if name not in names:
            raise ValueError(
                f"{name} is {value}: models of this system have no such setting; leave it out"
            )
        if (said := settings.get(names[name])) not in (None, value):
            raise ValueError(f"{name} is {value}: the file already says {said!a:.60}; leave it out")
    return {**settings, **{names[name]: value for name, value in given.items()}}


def _dimensiongpt_config(settings: Mapping[str, Any], shown: Mapping[str, int]) -> ModelConfig:
    sizes: dict[str, Any] = {name: size for name, size in shown.items() if name != "kv_dim"}
    return replace(ModelConfig(), **sizes, **settings)


def _lillm_config(settings: Mapping[str, Any], shown: Mapping[str, int]) -> ModelConfig:
    dim, ffn_dim = read_setting(settings, "d_model", int, shown["embedding_dim"]), shown["ffn_dim"]
    if "d_model" in settings:  # their rule for a config without a hidden_dim
        multiple = read_setting(settings, "multiple_of", int, 128)
        ffn_dim = -(-int(2 / 3 * 4 * dim) // multiple) * multiple
    dropout = read_setting(settings, "dropout", float, 0.0)
    return ModelConfig(
        vocab_size=read_setting(settings, "vocab_size", int, shown["vocab_size"]),
        context_length=read_setting(settings, "max_seq_len", int, 512),
        window_size=None,
        embedding_dim=dim,
        num_layers=read_setting(settings, "n_layers", int, shown["num_layers"]),
        num_heads=_num_heads(settings, "q_heads", {512: 16, 1024: 16}, dim),
        num_kv_heads=read_setting(settings, "kv_heads", int, 8),
        ffn_dim=read_setting(settings, "hidden_dim", int, ffn_dim),
        norm_eps=read_setting(settings, "eps", float, 1e-6),
        dropout=dropout,
        dropout_places=("outputs",),
        attention_dropout=dropout,
        init="fan_in",
        scaled_outputs="both",
    )


def _toygpt_config(settings: Mapping[str, Any], shown: Mapping[str, int]) -> ModelConfig:
    dim = read_setting(settings, "n_embed", int, shown["embedding_dim"])
    num_heads = _num_heads(settings, "n_head", {768: 8, 1024: 8, 2048: 16}, dim)
    dropout = read_setting(settings, "p_dropout", float, 0.1)
    return ModelConfig(
        vocab_size=read_setting(settings, "vocab_size", int, shown["vocab_size"]),
        context_length=read_setting(settings, "block_size", int, 512),
        window_size=None,
        embedding_dim=dim,
        num_layers=read_setting(settings, "n_layer", int, shown["num_layers"]),
        num_heads=num_heads,
        num_kv_heads=num_heads,
        ffn_dim=4 * dim,
        norm_eps=1e-5,
        dropout=dropout,
        dropout_places=("embedding", "outputs", "qkv", "stream"),
        attention_dropout=dropout,
        norm="layer",
        positions="sinusoidal",
        feed_forward="gelu",
        use_biases=True,
        use_final_norm=False,
        scaled_outputs="none",
    )


def _num_heads(
    settings: Mapping[str, Any], name: str, published: Mapping[int, int], dim: int
) -> int:
    """Return the query heads: the setting, else that of the published model of this width."""
    if settings.get(name) is None and dim not in published:
        raise ValueError(
            f"the file does not contain {name}, and no published model has the width {dim}: take a "
            "checkpoint with settings, give --num-heads (lilLM: --num-kv-heads too), or pass "
            "config="
        )
    num_heads: int = read_setting(settings, name, int, published.get(dim))
    return num_heads


CONFIGS: dict[CheckpointSystem, Callable[[Mapping[str, Any], Mapping[str, int]], ModelConfig]] = {
    "dimensiongpt": _dimensiongpt_config,
    "lillm": _lillm_config,
    "toygpt": _toygpt_config,
}
"""System -> function from a checkpoint's settings and the sizes of its tensors to the config."""
