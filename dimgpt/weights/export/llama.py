"""Which models are a Llama or a Mistral, and the names of their tensors there.

Llama has RMS norms, one of them last, rotary positions, SwiGLU, and no biases; Mistral has a window
besides. Weights are renamed here, not converted: what differs between the readers is theirs.
"""

import re
from collections.abc import Mapping

from dimgpt.config import ModelConfig

_WANTED = {
    "norm": "rms",
    "positions": "rotary",
    "feed_forward": "swiglu",
    "use_biases": False,
    "use_final_norm": True,
}

TRANSFORMERS_NAMES = {
    "token_embedding": "model.embed_tokens",
    "final_norm": "model.norm",
    "output_weight": "lm_head.weight",
    "blocks": "model.layers.{layer}",
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
GGUF_NAMES = {
    "token_embedding": "token_embd",
    "final_norm": "output_norm",
    "output_weight": "output.weight",
    "blocks": "blk.{layer}",
    "attention_norm": "attn_norm",
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.output": "attn_output",
    "ffn_norm": "ffn_norm",
    "feed_forward.gate": "ffn_gate",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
}


def is_llama(config: ModelConfig) -> bool:
    """Say whether a model is a Llama or a Mistral."""
    return all(getattr(config, name) == wanted for name, wanted in _WANTED.items())


def require_llama(config: ModelConfig, *, target: str) -> None:
    """Refuse a model that is neither a Llama nor a Mistral.

    Raises:
        ValueError: It has other parts; the message names them.
    """
    reasons = [
        f"{name} is {getattr(config, name)!r}, not {wanted!r}"
        for name, wanted in _WANTED.items()
        if getattr(config, name) != wanted
    ]
    if reasons:
        raise ValueError(
            f"{target} has no architecture for this model: {', '.join(reasons)}"
            f"{_why_not_gpt2(config)}; export it with --to safetensors"
        )


def rename_to(names: Mapping[str, str], name: str) -> str:
    """Return what a tensor of ours is called elsewhere.

    >>> rename_to(GGUF_NAMES, "blocks.3.attention.query.weight")
    'blk.3.attn_q.weight'
    """
    if name in names:
        return names[name]
    stem, _, kind = name.rpartition(".")
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", stem)
    if match is None:
        return f"{names[stem]}.{kind}"
    return f"{names['blocks'].format(layer=match[1])}.{names[match[2]]}.{kind}"


def _why_not_gpt2(config: ModelConfig) -> str:
    """Say what keeps a model with waves for positions from being a GPT-2, the nearest there is."""
    if config.positions != "sinusoidal" or (config.use_final_norm and not config.use_biases):
        return ""
    missing = "" if config.use_final_norm else "normalises before its output layer"
    bias = "has no bias in its output layer" if config.use_biases else ""
    return (
        ". GPT-2 learns its positions: it could take these fixed waves for learned ones, but it "
        f"{' and '.join(filter(None, (missing, bias)))}"
    )
