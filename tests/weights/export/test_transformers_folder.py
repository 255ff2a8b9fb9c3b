"""What transformers itself makes of the folders; it takes seconds to import, so only here."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from dimgpt.config import ExportConfig, SamplingConfig
from dimgpt.data.conversation import (
    Conversation,
    Message,
    encode_conversation,
    encode_prompt,
    loss_weights,
)
from dimgpt.generation.generator import generate_ids
from dimgpt.model.transformer import Transformer
from dimgpt.text.byte_level import ByteLevelTokenizer
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.weights.card import Card
from dimgpt.weights.export.exporter import export_model
from dimgpt.weights.export.transformers_folder import write_transformers
from dimgpt.weights.huggingface import halves_from_pairs, load_huggingface

pytestmark = pytest.mark.slow

TALK = (
    ("system", "Tu es un <b>⮜user⮞</b> gentil."),
    ("user", "  Bonjour ! ça va ?\n"),
    ("assistant", "Très bien, et toi ?"),
    ("user", "Oui\tbien \n\n\n merci"),
    ("assistant", "Bon."),
    ("assistant", "Fin ⮜end-of-text⮞ de tout"),
    ("human", "Moi aussi"),
    ("system", "Sois bref."),
    ("user", ""),
)
GREEDY = SamplingConfig(temperature=0, max_new_tokens=200)
SLIDING, FULL = "sliding_attention", "full_attention"


@pytest.fixture(scope="module")
def transformers() -> ModuleType:
    return pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.fixture(scope="module")
def opened(
    tiny_model: Transformer,
    tokenizer: GreedyTokenizer,
    transformers: ModuleType,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("mistral")
    write_transformers(tiny_model, tokenizer, folder, dtype=torch.float32)
    return open_folder(transformers, folder)


def open_folder(transformers: ModuleType, folder: Path) -> tuple[Any, Any]:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def largest_difference(theirs: Any, ours: Transformer) -> float:
    ids = torch.randint(10, ours.config.vocab_size, (2, ours.config.context_length))
    with torch.inference_mode():
        return float((theirs(ids).logits - ours(ids)).abs().max())


def greedy_ids(theirs: Any, prompt: list[int], **options: object) -> list[int]:
    output = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=200, do_sample=False, use_cache=True, **options
    )
    return output[0, len(prompt) :].tolist()


def test_a_model_with_a_window_is_a_mistral_with_our_logits(
    opened: tuple[Any, Any], tiny_model: Transformer
) -> None:
    model, _ = opened
    assert type(model).__name__ == "MistralForCausalLM"
    assert model.config.sliding_window == tiny_model.config.window_size + 1
    assert largest_difference(model, tiny_model) < 1e-4


def test_two_hundred_greedy_tokens_with_cache_are_ours(
    opened: tuple[Any, Any], tiny_model: Transformer, tokenizer: GreedyTokenizer
) -> None:
    model, _ = opened
    lengths = []
    for text in ("Le chat", "Une"):
        prompt = tokenizer.encode_beginning(text)
        ids = list(
            generate_ids(
                tiny_model,
                prompt,
                GREEDY,
                special_tokens=tokenizer.special_tokens,
                stops=tokenizer.chat.stops,
            )
        )
        found = greedy_ids(model, prompt)
        assert [id for id in found if id not in model.generation_config.eos_token_id] == ids
        lengths.append(len(ids))
    assert max(lengths) == 200


def test_a_model_without_a_window_is_a_llama_with_our_logits_and_tokens(
    llama_model: Transformer,
    llama_tokenizer: ByteLevelTokenizer,
    transformers: ModuleType,
    tmp_path: Path,
) -> None:
    write_transformers(llama_model, llama_tokenizer, tmp_path, dtype=torch.float32)
    model, their_tokenizer = open_folder(transformers, tmp_path)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert largest_difference(model, llama_model) < 1e-4
    for text in ("The cat sat", "  été\n\n", "x", "", "<r0>user</s> a"):
        ids = their_tokenizer.encode(text, split_special_tokens=True)
        assert ids == llama_tokenizer.encode(text), text
        assert their_tokenizer.decode(ids) == llama_tokenizer.decode(ids)


def test_untied_embeddings_have_an_output_layer_of_their_own(
    make_model: Callable[..., Transformer],
    tokenizer: GreedyTokenizer,
    transformers: ModuleType,
    tmp_path: Path,
) -> None:
    ours = make_model(tie_embeddings=False, rope_theta=500.0)
    write_transformers(ours, tokenizer, tmp_path, dtype=torch.float32)
    model, _ = open_folder(transformers, tmp_path)
    assert largest_difference(model, ours) < 1e-4


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({}, [SLIDING] * 3),
        ({"window_size": None, "num_kv_heads": 1}, [FULL] * 3),
        ({"attention_pattern": ("full",), "norm_eps": 1e-2}, [FULL] * 3),
        ({"attention_pattern": ("window", "full"), "rope_theta": 500.0}, [SLIDING, FULL, SLIDING]),
        ({"attention_pattern": ("full", "full", "window")}, [FULL, FULL, SLIDING]),
        ({"attention_pattern": ("full", "window"), "tie_embeddings": False}, [FULL, SLIDING, FULL]),
    ],
    ids=str,
)
def test_a_model_with_normalised_queries_and_keys_is_a_qwen3_with_our_logits(
    make_model: Callable[..., Transformer],
    tokenizer: GreedyTokenizer,
    transformers: ModuleType,
    tmp_path: Path,
    changes: dict[str, Any],
    layers: list[str],
) -> None:
    ours = make_model(qk_norm=True, **changes)
    write_transformers(ours, tokenizer, tmp_path, dtype=torch.float32)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert model.config.layer_types == layers
    assert model.config.sliding_window == (17 if SLIDING in layers else None)
    assert largest_difference(model, ours) < 1e-4


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"window_size": None, "num_kv_heads": 1, "experts_per_token": 3, "ffn_dim": 168},
        {"attention_pattern": ("full",), "tie_embeddings": False, "rope_theta": 500.0},
    ],
    ids=str,
)
def test_a_model_with_experts_is_a_mixtral_with_our_logits(
    make_model: Callable[..., Transformer],
    tokenizer: GreedyTokenizer,
    transformers: ModuleType,
    tmp_path: Path,
    changes: dict[str, Any],
) -> None:
    ours = make_model(num_experts=4, **changes)
    write_transformers(ours, tokenizer, tmp_path, dtype=torch.float32)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(model).__name__ == "MixtralForCausalLM"
    assert model.config.sliding_window == (17 if ours.config.windows[0] else None)
    assert largest_difference(model, ours) < 1e-4


def test_a_qwen3_generates_our_greedy_tokens_with_its_cache(
    qwen_model: Transformer,
    tokenizer: GreedyTokenizer,
    transformers: ModuleType,
    tmp_path: Path,
) -> None:
    write_transformers(qwen_model, tokenizer, tmp_path, dtype=torch.float32)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    prompt = tokenizer.encode_beginning("Le chat")
    found, ids = greedy_ids(model, prompt, eos_token_id=-1, suppress_tokens=None), list(prompt)
    while len(ids) < qwen_model.config.context_length:
        with torch.inference_mode():
            ids.append(int(qwen_model(torch.tensor([ids]))[0, -1].argmax()))
    assert found[: len(ids) - len(prompt)] == ids[len(prompt) :]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"window_size": None},
        {"qk_norm": True},
        {"qk_norm": True, "window_size": None, "attention_pattern": ("full",)},
        {"qk_norm": True, "attention_pattern": ("full", "window"), "tie_embeddings": False},
    ],
    ids=str,
)
def test_what_was_exported_is_imported_with_the_same_weights_and_windows(
    make_model: Callable[..., Transformer],
    tokenizer: GreedyTokenizer,
    tmp_path: Path,
    changes: dict[str, Any],
) -> None:
    ours = make_model(**changes)
    write_transformers(ours, tokenizer, tmp_path, dtype=torch.float32)
    again = load_huggingface(tmp_path)
    assert again.config.windows == ours.config.windows
    assert again.config.attention_pattern == ours.config.attention_pattern
    weights = again.state_dict()
    assert weights.keys() == ours.state_dict().keys()
    for name, weight in ours.state_dict().items():
        assert torch.equal(weights[name], weight), name


def test_half_precision_is_stored_and_opened_as_such(
    tiny_model: Transformer,
    tokenizer: GreedyTokenizer,
    transformers: ModuleType,
    tmp_path: Path,
) -> None:
    write_transformers(tiny_model, tokenizer, tmp_path, dtype=torch.bfloat16)
    model, _ = open_folder(transformers, tmp_path)
    assert model.dtype == torch.bfloat16
    expected = tiny_model.token_embedding.weight.bfloat16()
    assert torch.equal(model.get_input_embeddings().weight, expected)


def test_texts_become_our_ids(opened: tuple[Any, Any], tokenizer: GreedyTokenizer) -> None:
    _, theirs = opened
    assert len(theirs) == tokenizer.vocab_size
    for text in ("« Œuvre »\t— 東京", "l'été ❤\ufe0f 🇫🇷", " a \n\n\n b ", "⮜user⮞"):
        ids = theirs(text, split_special_tokens=True).input_ids
        assert ids == tokenizer.encode_beginning(text)
        assert theirs.decode(ids[1:]) == tokenizer.decode(ids[1:])


def test_special_tokens_in_a_text_are_read_unless_the_caller_says_no(
    opened: tuple[Any, Any], tokenizer: GreedyTokenizer
) -> None:
    _, theirs = opened
    user = tokenizer.special_tokens.user
    assert user in theirs("a ⮜user⮞ b").input_ids  # the trap that the card tells of
    assert user not in theirs("a ⮜user⮞ b", split_special_tokens=True).input_ids


@pytest.mark.parametrize("length", range(1, len(TALK) + 1))
def test_a_conversation_has_our_ids_and_its_mask_our_loss_weights(
    opened: tuple[Any, Any], tokenizer: GreedyTokenizer, length: int
) -> None:
    _, theirs = opened
    messages = [{"role": role, "content": text} for role, text in TALK[:length]]
    conversation = Conversation(
        messages=tuple(Message(role=role, text=text) for role, text in TALK[:length])
    )
    special_tokens = tokenizer.special_tokens
    ids = [
        *tokenizer.encode_beginning(""),
        *encode_conversation(conversation, tokenizer),
        special_tokens.end_of_text,
    ]
    encoded = theirs.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    weights = loss_weights(ids, tokenizer.chat, instruction_weight=0)
    assert encoded["input_ids"] == ids
    assert encoded["assistant_masks"] == weights.tolist()


def test_a_prompt_for_an_answer_has_our_ids(
    opened: tuple[Any, Any], tokenizer: GreedyTokenizer
) -> None:
    _, theirs = opened
    for length in (2, 4, 9):
        messages = [{"role": role, "content": text} for role, text in TALK[:length]]
        encoded = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        ours = [Message(role=role, text=text) for role, text in TALK[:length]]
        assert encoded["input_ids"] == encode_prompt(ours, tokenizer)


def test_lillms_chat_masks_the_answers_with_what_ends_them(
    llama_model: Transformer,
    llama_tokenizer: ByteLevelTokenizer,
    transformers: ModuleType,
    tmp_path: Path,
    encode_template: Callable[..., list[int]],
) -> None:
    write_transformers(llama_model, llama_tokenizer, tmp_path, dtype=torch.float32)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    messages = [
        {"role": "user", "content": "The cat?"},
        {"role": "assistant", "content": "sat on the mat"},
    ]
    encoded = theirs.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    text = "<r0>user<r1>The cat?</r2><r0>assistant<r1>sat on the mat</s>"
    assert encoded["input_ids"] == encode_template(llama_tokenizer, text)
    masked = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    answer = [id for id, is_answer in masked if is_answer]
    end = llama_tokenizer.special_tokens.end_of_text
    assert answer == [*llama_tokenizer.encode("sat on the mat"), end]
    prompt = theirs.apply_chat_template(messages[:1], add_generation_prompt=True)
    assert list(prompt["input_ids"]) == encoded["input_ids"][: len(prompt["input_ids"])]


def test_saving_the_tokenizer_again_keeps_it(
    opened: tuple[Any, Any], transformers: ModuleType, tmp_path: Path
) -> None:
    _, theirs = opened
    theirs.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "Bonjour à ☃œ toi ❤\ufe0f\n\n\n!"
    assert again.encode(text) == theirs.encode(text)


def test_no_code_is_in_the_folder(
    tiny_model: Transformer, tokenizer: GreedyTokenizer, tmp_path: Path
) -> None:
    write_transformers(tiny_model, tokenizer, tmp_path, dtype=torch.float32)
    assert not [path for path in tmp_path.iterdir() if path.suffix in {".py", ".bin", ".pt"}]
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text("utf-8"))


def test_pairs_become_halves_head_by_head() -> None:
    weight = torch.arange(8.0)[:, None]  # two heads of four rows
    assert halves_from_pairs(weight, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert halves_from_pairs(torch.arange(6.0), 1).tolist() == [0, 2, 4, 1, 3, 5]  # a norm


def test_other_parts_are_named_with_what_gpt2_lacks(
    toygpt_model: Transformer, tokenizer: GreedyTokenizer, tmp_path: Path
) -> None:
    message = "norm is 'layer'.*positions is 'sinusoidal'.*use_final_norm is False.*GPT-2"
    with pytest.raises(ValueError, match=message) as caught:
        export_model(
            toygpt_model, tokenizer, tmp_path, ExportConfig(target="transformers"), card=Card()
        )
    assert "no bias in its output layer" in str(caught.value)
    assert not list(tmp_path.iterdir())
