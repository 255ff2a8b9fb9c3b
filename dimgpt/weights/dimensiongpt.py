"""The weights of the original DimensionGPT: a bare state dict, without a config."""

from dataclasses import replace
from typing import Any

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.weights.checkpoint_file import Checkpoint
from dimgpt.weights.layout import Layout, assemble, sizes_in, without_output

_PUBLISHED = ModelConfig()
_OUTPUT, _EMBEDDING = "final_linear.weight", "token_embedding.weight"
LAYOUT = Layout(
    system="DimensionGPT",
    blocks="blocks",
    outside={_EMBEDDING: "token_embedding.weight", "final_norm.weight": "final_norm.weight"},
    inside={
        "norm_1.weight": "attention_norm.weight",
        "attention.query.weight": "attention.query.weight",
        "attention.key.weight": "attention.key.weight",
        "attention.value.weight": "attention.value.weight",
        "attention.projection.weight": "attention.output.weight",
        "norm_2.weight": "ffn_norm.weight",
        "feed_forward.linear_1.weight": "feed_forward.gate.weight",
        "feed_forward.linear_2.weight": "feed_forward.up.weight",
        "feed_forward.linear_3.weight": "feed_forward.down.weight",
    },
)


def build_dimensiongpt(checkpoint: Checkpoint, config: ModelConfig | None) -> Transformer:
    """Build the model of a file; `None` takes from it the sizes that it shows.

    What it does not show is as published, where it is not given.

    Raises:
        ValueError: The tensors are not those of DimensionGPT, or have other sizes.
    """
    source = checkpoint.source
    tensors = without_output(
        checkpoint.tensors, output=_OUTPUT, embedding=_EMBEDDING, layout=LAYOUT, source=source
    )
    if config is None:
        shown: dict[str, Any] = sizes_in(tensors, LAYOUT, source=source)
        sizes = {name: size for name, size in shown.items() if name != "kv_dim"}
        try:
            config = replace(_PUBLISHED, **{**sizes, **checkpoint.given})
        except ValueError as error:
            raise ValueError(f"{source} has other heads than the published ones: {error}") from None
    return assemble(tensors, config, LAYOUT, source=source)
