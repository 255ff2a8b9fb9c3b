"""The weights of toyGPT: a Lightning checkpoint with `hyper_parameters`, or its state dict alone.

Queries, keys and values of a block are one matrix there, one below the other.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.weights.checkpoint_file import Checkpoint
from dimgpt.weights.layout import Layout, assemble, sizes_in, without_output
from dimgpt.weights.stored_settings import add_given, number, whole_number

_OUTPUT, _EMBEDDING = "output_linear.weight", "embedding.weight"
_FUSED = (".mha.attn_proj.0.weight", ".mha.attn_proj.0.bias")
_GIVEN_NAMES = {"num_heads": "n_head", "context_length": "block_size"}
_PARTS = ("query", "key", "value")
_HEADS_OF_WIDTH = {768: 8, 1024: 8, 2048: 16}
_BLOCK = {
    "input_norm": "attention_norm",
    "mha.out_linear": "attention.output",
    "mha_lnorm": "ffn_norm",
    "pw_ff.pwff.0": "feed_forward.up",
    "pw_ff.pwff.2": "feed_forward.down",
}
LAYOUT = Layout(
    system="toyGPT",
    blocks="transformers",
    outside={_EMBEDDING: "token_embedding.weight", "output_linear.bias": "output_bias"},
    inside={
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in _BLOCK.items()
        for kind in ("weight", "bias")
    }
    | {
        f"mha.attn_proj.0.{kind}[{part}]": f"attention.{part}.{kind}"
        for part in _PARTS
        for kind in ("weight", "bias")
    },
)


def build_toygpt(checkpoint: Checkpoint, config: ModelConfig | None) -> Transformer:
    """Build the model of a file; `None` takes the sizes from it, the heads from its settings.

    Raises:
        ValueError: The tensors are not those of toyGPT, have other sizes, or nothing says how many
            heads they are.
    """
    source = checkpoint.source
    tensors = without_output(
        checkpoint.tensors, output=_OUTPUT, embedding=_EMBEDDING, layout=LAYOUT, source=source
    )
    tensors = _with_parts(tensors)
    if config is None:
        shown = sizes_in(tensors, LAYOUT, source=source)
        settings = add_given(checkpoint.settings, checkpoint.given, _GIVEN_NAMES, source=source)
        config = config_of(settings, shown, source=source)
    return assemble(tensors, config, LAYOUT, source=source)


def _with_parts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut each fused tensor in three, named after their part; what cannot be cut stays."""
    parts: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_FUSED) and tensor.dim() and tensor.shape[0] % len(_PARTS) == 0:
            pieces = tensor.tensor_split(len(_PARTS))
            parts |= {f"{name}[{part}]": piece for part, piece in zip(_PARTS, pieces, strict=True)}
        else:
            parts[name] = tensor
    return parts


def config_of(settings: Mapping[str, Any], shown: Mapping[str, int], *, source: str) -> ModelConfig:
    """Return our config of theirs; what theirs leaves out is as the tensors show, or published."""
    dim = whole_number(settings, "n_embed", shown["embedding_dim"], source=source)
    if settings.get("n_head") is None and dim not in _HEADS_OF_WIDTH:
        raise ValueError(
            f"{source} says nothing of its heads and is {dim} wide, as no published toyGPT is: "
            "take the Lightning checkpoint (.ckpt), give --num-heads, or pass config="
        )
    num_heads = whole_number(settings, "n_head", _HEADS_OF_WIDTH.get(dim), source=source)
    try:
        return ModelConfig(
            vocab_size=whole_number(settings, "vocab_size", shown["vocab_size"], source=source),
            context_length=whole_number(settings, "block_size", 512, source=source),
            window_size=None,
            embedding_dim=dim,
            num_layers=whole_number(settings, "n_layer", shown["num_layers"], source=source),
            num_heads=num_heads,
            num_kv_heads=num_heads,
            ffn_dim=4 * dim,
            norm_eps=1e-5,
            dropout=number(settings, "p_dropout", 0.1, source=source),
            norm="layer",
            positions="sinusoidal",
            feed_forward="gelu",
            use_biases=True,
            use_final_norm=False,
            scaled_outputs="none",
        )
    except ValueError as error:
        raise ValueError(f"the settings in {source} describe no model: {error}") from None
