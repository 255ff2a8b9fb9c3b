"""A model as the folder that `transformers` opens without custom code.

A model with a window becomes a `MistralForCausalLM`, one without a `LlamaForCausalLM`. Their rotary
embeddings rotate channels i and i + D / 2 together, ours 2i and 2i + 1: the rows of the query and
key matrices are reordered. Their window counts the current position, ours does not. Beyond
`context_length` tokens their positions keep growing, while our generator keeps the latest tokens
and starts their positions again.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.text.byte_level import ByteLevelTokenizer
from dimgpt.text.special_tokens import SpecialTokens
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.card import Usage
from dimgpt.weights.export.tokenizer_files import chat_template, greedy_tokenizer_json
from dimgpt.weights.huggingface import LLAMA

_USAGE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".")  # this folder
tokenizer = AutoTokenizer.from_pretrained(".")
ids = tokenizer("…", return_tensors="pt").input_ids
print(tokenizer.decode(model.generate(ids)[0], skip_special_tokens=True))
```"""


def write_transformers(
    model: Transformer, tokenizer: Tokenizer, folder: Path, *, dtype: torch.dtype
) -> Usage:
    """Write weights, configuration and tokenizer of a Llama or Mistral into an empty folder."""
    tensors = {
        LLAMA.theirs(name): _converted(name, tensor, model.config, dtype)
        for name, tensor in model.state_dict().items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    special_tokens = tokenizer.special_tokens
    template = chat_template(tokenizer)
    contents = {
        "config.json": model_json(model.config, special_tokens, dtype=dtype),
        "generation_config.json": generation_json(model.config, special_tokens),
        "tokenizer.json": json.loads(tokenizer.to_bytes())
        if isinstance(tokenizer, ByteLevelTokenizer)
        else greedy_tokenizer_json(tokenizer.tokens),
        "tokenizer_config.json": tokenizer_config_json(model.config, tokenizer, template),
    }
    for name, content in contents.items():
        text = json.dumps(content, ensure_ascii=False, indent=None if "tokenizer" in name else 2)
        (folder / name).write_text(text, encoding="utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    if tokenizer.file_name not in contents:
        tokenizer.save(folder / tokenizer.file_name)  # what dimgpt itself opens
    # save_file makes the weights readable by their owner only.
    shutil.copymode(folder / "config.json", folder / "model.safetensors")
    notes = _notes(model.config, special_tokens)
    return Usage(text=_USAGE, library="transformers", notes=notes)


def model_json(
    config: ModelConfig, special_tokens: SpecialTokens, *, dtype: torch.dtype
) -> dict[str, Any]:
    """Describe the architecture as `config.json` does."""
    window = config.window_size
    content = {
        "architectures": ["LlamaForCausalLM" if window is None else "MistralForCausalLM"],
        "model_type": "llama" if window is None else "mistral",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.embedding_dim,
        "intermediate_size": config.ffn_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,  # older versions read this, newer ones the next
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_dropout": 0.0,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tie_embeddings,
        "use_cache": True,
        "bos_token_id": special_tokens.start_of_text,
        "eos_token_id": special_tokens.end_of_text,
        "pad_token_id": special_tokens.padding,
        "dtype": str(dtype).removeprefix("torch."),
    }
    if window is None:
        return {**content, "attention_bias": False, "mlp_bias": False}
    return {**content, "sliding_window": window + 1}


def generation_json(config: ModelConfig, special_tokens: SpecialTokens) -> dict[str, Any]:
    """Return settings for `generate`: ⮜user⮞ ends an answer and no other role comes, as in chat."""
    ends = [special_tokens.end_of_text]
    if special_tokens.user is not None:
        ends.append(special_tokens.user)
    return {
        "bos_token_id": special_tokens.start_of_text,
        "eos_token_id": ends,
        "pad_token_id": special_tokens.padding,
        "suppress_tokens": [id for id in special_tokens.never_produced if id not in ends],
        "max_length": config.context_length,
    }


def tokenizer_config_json(
    config: ModelConfig, tokenizer: Tokenizer, template: str | None
) -> dict[str, Any]:
    """Describe the tokenizer as `tokenizer_config.json` does; older versions read the template."""
    special_tokens = tokenizer.special_tokens
    ids = {
        "unk_token": special_tokens.unknown,
        "pad_token": special_tokens.padding,
        "bos_token": special_tokens.start_of_text,
        "eos_token": special_tokens.end_of_text,
    }
    content: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.context_length,
        "clean_up_tokenization_spaces": False,
        **{name: tokenizer.tokens[id] for name, id in ids.items() if id is not None},
    }
    return content if template is None else {**content, "chat_template": template}


def halves_from_pairs(weight: Tensor, num_heads: int) -> Tensor:
    """Order the rows of each head as (0, 2, 4, …, 1, 3, 5, …): neighbouring pairs to halves.

    Args:
        weight: Projection to queries or keys, (H * D, C).
        num_heads: H.
    """
    return weight.unflatten(0, (num_heads, -1, 2)).transpose(1, 2).reshape(weight.shape)


def _converted(name: str, tensor: Tensor, config: ModelConfig, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().to("cpu", torch.float32)
    if name.endswith("attention.query.weight"):
        tensor = halves_from_pairs(tensor, config.num_heads)
    elif name.endswith("attention.key.weight"):
        tensor = halves_from_pairs(tensor, config.num_kv_heads)
    return tensor.to(dtype).contiguous()


def _notes(config: ModelConfig, special_tokens: SpecialTokens) -> tuple[str, ...]:
    beyond = (
        f"Beyond {config.context_length} tokens, which training never saw, results differ from "
        "dimgpt's, which keeps the latest tokens and starts their positions anew."
    )
    spelled = (
        "What a text spells as a special token is one: pass split_special_tokens=True for text "
        "that others have typed."
    )
    if special_tokens.user is None:
        return (beyond, spelled)
    return (
        beyond,
        f"{spelled} The chat template takes care of it by itself.",
        "generate ends at the user's turn too, as in a chat; pass suppress_tokens and eos_token_id "
        "to change that.",
    )
