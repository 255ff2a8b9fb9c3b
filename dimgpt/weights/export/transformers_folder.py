"""A model as a folder that `transformers` opens without custom code.

A model with experts becomes a `MixtralForCausalLM`, one with `qk_norm` a `Qwen3ForCausalLM`, any
other with a window a `MistralForCausalLM`, one without a `LlamaForCausalLM`. The rows of the query
and key matrices are reordered, see `huggingface.py`. The window of `transformers` includes the
current position, dimgpt's does not. Beyond `context_length` tokens, positions in `transformers`
keep growing, while dimgpt's generator keeps the latest tokens and restarts their positions.

The `tokenizer.json` of a vocabulary of DimensionGPT is built here from the parts of the
`tokenizers` library, because the ids must be exactly the same: WordPiece with an empty continuation
prefix is greedy longest match, a normaliser cleans, and a decoder restores emoji. The ids differ in
three cases, none of them in ordinary text: of several combining signs in a row at the start of a
text or line, only the first is kept; a character that occurs in the vocabulary only within longer
tokens makes its whole word unknown; and text that spells a special token becomes one, unless the
caller passes `split_special_tokens=True`. Words of thousands of characters are slow there.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.normalizers import Replace
from torch import Tensor

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.text.alphabet import ALPHABET, STAND_INS
from dimgpt.text.byte_level import ByteLevelTokenizer
from dimgpt.text.chat_template import chat_template
from dimgpt.text.cleaning import WORD_PATTERN
from dimgpt.text.special_tokens import (
    NEW_LINE,
    SPECIAL_TOKEN_TEXTS,
    SPECIAL_TOKENS,
    TAB,
    SpecialTokens,
)
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.card import Usage
from dimgpt.weights.export.charsmap import character_class, normalizer_steps
from dimgpt.weights.huggingface import (
    LLAMA,
    SPANS,
    halves_from_pairs,
    reorder_heads,
    unstack_experts,
)

_START = SPECIAL_TOKENS[2]
_UNKNOWN_CHARACTER = "\N{REPLACEMENT CHARACTER}"
_SPELLED = {TAB: "\t", NEW_LINE: "\n"}
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
    """Write weights, configuration and tokenizer into an empty folder."""
    config, special_tokens = model.config, tokenizer.special_tokens
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        numbers = tensor.detach().to("cpu", torch.float32)
        numbers = reorder_heads(name, numbers, config, halves_from_pairs)
        parts = {LLAMA.theirs(name): numbers}
        if config.num_experts is not None:
            parts = unstack_experts(name, numbers) or parts
        tensors |= {theirs: part.to(dtype).contiguous() for theirs, part in parts.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    chat = tokenizer.chat_format
    template = None if chat is None else chat_template(chat)
    contents = {
        "config.json": _model_json(config, special_tokens, dtype),
        "generation_config.json": _generation_json(config, tokenizer),
        "tokenizer.json": json.loads(tokenizer.to_bytes())
        if isinstance(tokenizer, ByteLevelTokenizer)
        else greedy_tokenizer_json(tokenizer.tokens),
        "tokenizer_config.json": _tokenizer_config_json(config, tokenizer, template),
    }
    for name, content in contents.items():
        text = json.dumps(content, ensure_ascii=False, indent=None if "tokenizer" in name else 2)
        (folder / name).write_text(text, encoding="utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    if tokenizer.file_name not in contents:
        tokenizer.save(folder / tokenizer.file_name)  # for dimgpt itself
    # save_file makes the weights readable by their owner only.
    shutil.copymode(folder / "config.json", folder / "model.safetensors")
    return Usage(text=_USAGE, library="transformers", notes=_notes(config, special_tokens))


def _model_json(
    config: ModelConfig, special_tokens: SpecialTokens, dtype: torch.dtype
) -> dict[str, Any]:
    kind, settings = _attention_json(config)
    return {
        "architectures": [f"{kind}ForCausalLM"],
        "model_type": kind.lower(),
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
        **settings,
    }


def _attention_json(config: ModelConfig) -> tuple[str, dict[str, Any]]:
    """Return the name of the kind of model, and the settings that only this kind has."""
    window = next((window for window in config.windows if window is not None), None)
    windows = {} if window is None else {"sliding_window": window + 1}
    if config.num_experts is not None:
        is_aligned = config.embedding_dim % 8 == 0 == config.ffn_dim % 8
        return "Mixtral", {
            "sliding_window": None,
            **windows,
            "num_local_experts": config.num_experts,
            "num_experts_per_tok": config.experts_per_token,
            # Its grouped matmul requires rows of a multiple of 16 bytes.
            **({} if is_aligned else {"experts_implementation": "eager"}),
        }
    if not config.qk_norm:
        no_biases = {"attention_bias": False, "mlp_bias": False}
        return ("Mistral", windows) if windows else ("Llama", no_biases)
    names = {span: name for name, span in SPANS.items()}
    layers = [names["full" if window is None else "window"] for window in config.windows]
    return "Qwen3", {
        "attention_bias": False,
        "use_sliding_window": window is not None,
        "sliding_window": None,
        **windows,
        "layer_types": layers,
        "max_window_layers": config.windows.index(window),  # the first with a window
    }


def _generation_json(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return settings for `generate`; the tokens that end an answer also end a text."""
    special_tokens = tokenizer.special_tokens
    ends = list(dict.fromkeys([special_tokens.end_of_text, *tokenizer.stops]))
    return {
        "bos_token_id": special_tokens.start_of_text,
        "eos_token_id": ends,
        "pad_token_id": special_tokens.padding,
        "suppress_tokens": [id for id in special_tokens.never_produced if id not in ends],
        "max_length": config.context_length,
    }


def _tokenizer_config_json(
    config: ModelConfig, tokenizer: Tokenizer, template: str | None
) -> dict[str, Any]:
    """Describe the tokenizer; older versions of `transformers` read the template here."""
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


def greedy_tokenizer_json(tokens: Sequence[str]) -> dict[str, Any]:
    """Return a `tokenizer.json` that gives the ids of `GreedyTokenizer(tokens)`.

    With `add_special_tokens`, the default of its readers, a text gets ⮜start-of-text⮞ before it.
    """
    known = set("".join(tokens[len(SPECIAL_TOKENS) :]))
    unknown = "".join(character for character in ALPHABET if character not in known)
    cleaning, splits = normalizer_steps(), [pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated")]
    if unknown:  # only such a character becomes unknown, not the word around it
        cleaning.append(Replace(Regex(f"[{character_class(unknown)}]"), _UNKNOWN_CHARACTER))
        splits.append(pre_tokenizers.Split(_UNKNOWN_CHARACTER, "isolated"))
    tokenizer = tokenizers.Tokenizer(
        models.WordPiece(
            {_SPELLED.get(token, token): id for id, token in enumerate(tokens)},
            unk_token=SPECIAL_TOKENS[0],
            continuing_subword_prefix="",
            max_input_chars_per_word=1_000_000_000,  # longer words would be one unknown
        )
    )
    tokenizer.add_special_tokens([token for token in SPECIAL_TOKENS if token not in _SPELLED])
    tokenizer.normalizer = normalizers.Sequence(cleaning)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[_START, "$A"],
        pair=[_START, "$A", "$B"],
        special_tokens=[(_START, SPECIAL_TOKENS.index(_START))],
    )
    texts = SPECIAL_TOKEN_TEXTS.items()
    tokenizer.decoder = decoders.Sequence(
        [
            *(decoders.Replace(token, text) for token, text in texts if token not in _SPELLED),
            # In reverse, because the last emoji is the beginning of others.
            *(decoders.Replace(part, emoji) for emoji, part in reversed(STAND_INS.items())),
            decoders.Fuse(),
        ]
    )
    description: dict[str, Any] = json.loads(tokenizer.to_str())
    return description


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
