"""The weights of lilLM: a dict with the state dict, the optimizer, and a pickled config."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.weights.checkpoint_file import Checkpoint
from dimgpt.weights.layout import Layout, assemble, sizes_in, without_output
from dimgpt.weights.stored_settings import add_given, number, whole_number

_PUBLISHED_WIDTHS = (512, 1024)
_GIVEN_NAMES = {
    "num_heads": "q_heads",
    "num_kv_heads": "kv_heads",
    "context_length": "max_seq_len",
}
_OUTPUT, _EMBEDDING = "lm_head.weight", "tok_emb.weight"
LAYOUT = Layout(
    system="lilLM",
    blocks="transformer_blocks",
    outside={_EMBEDDING: "token_embedding.weight", "norm.gain": "final_norm.weight"},
    inside={
        "attn_norm.gain": "attention_norm.weight",
        "attn.wq.weight": "attention.query.weight",
        "attn.wk.weight": "attention.key.weight",
        "attn.wv.weight": "attention.value.weight",
        "attn.wo.weight": "attention.output.weight",
        "ffn_norm.gain": "ffn_norm.weight",
        "ffn.w1.weight": "feed_forward.gate.weight",
        "ffn.w3.weight": "feed_forward.up.weight",
        "ffn.w2.weight": "feed_forward.down.weight",
    },
)


def build_lillm(checkpoint: Checkpoint, config: ModelConfig | None) -> Transformer:
    """Build the model of a file; `None` takes the sizes from its config, or from its tensors.

    Raises:
        ValueError: The tensors are not those of lilLM, or have other sizes.
    """
    source = checkpoint.source
    tensors = without_output(
        checkpoint.tensors, output=_OUTPUT, embedding=_EMBEDDING, layout=LAYOUT, source=source
    )
    if config is None:
        settings, given = checkpoint.settings, checkpoint.given
        settings = settings or _settings_shown(
            tensors, has_heads="num_heads" in given, source=source
        )
        settings = add_given(settings, given, _GIVEN_NAMES, source=source)
        config = config_of(settings, source=source)
    return assemble(tensors, config, LAYOUT, source=source)


def _settings_shown(
    tensors: Mapping[str, Tensor], *, has_heads: bool, source: str
) -> dict[str, Any]:
    """Return what tensors without a config say; heads they do not show."""
    shown = sizes_in(tensors, LAYOUT, source=source)
    if (dim := shown["embedding_dim"]) not in _PUBLISHED_WIDTHS and not has_heads:
        raise ValueError(
            f"{source} says nothing of its heads and is {dim} wide, as no published lilLM is: take "
            "the checkpoint with its config, give --num-heads and --num-kv-heads, or pass config="
        )
    return {
        "vocab_size": shown["vocab_size"],
        "d_model": dim,
        "n_layers": shown["num_layers"],
        "hidden_dim": shown["ffn_dim"],
    }


def config_of(settings: Mapping[str, Any], *, source: str) -> ModelConfig:
    """Return our config of theirs; what theirs leaves out has the published value."""
    dim = whole_number(settings, "d_model", 512, source=source)
    try:
        return ModelConfig(
            vocab_size=whole_number(settings, "vocab_size", 8_192, source=source),
            context_length=whole_number(settings, "max_seq_len", 512, source=source),
            window_size=None,
            embedding_dim=dim,
            num_layers=whole_number(settings, "n_layers", 12, source=source),
            num_heads=whole_number(settings, "q_heads", 16, source=source),
            num_kv_heads=whole_number(settings, "kv_heads", 8, source=source),
            ffn_dim=_hidden_dim(settings, dim, source=source),
            norm_eps=number(settings, "eps", 1e-6, source=source),
            dropout=number(settings, "dropout", 0.0, source=source),
            init="fan_in",
            scaled_outputs="both",
        )
    except ValueError as error:
        raise ValueError(f"the config in {source} describes no model: {error}") from None


def _hidden_dim(settings: Mapping[str, Any], dim: int, *, source: str) -> int:
    """Return 2/3 of four times the width, rounded up, where the config does not say another."""
    multiple = whole_number(settings, "multiple_of", 128, source=source)
    rounded = -(-int(2 / 3 * 4 * dim) // multiple) * multiple
    return whole_number(settings, "hidden_dim", rounded, source=source)
