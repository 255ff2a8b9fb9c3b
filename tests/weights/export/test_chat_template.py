"""A chat format gives ids, loss weights, stops and a template: here they must agree."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import pytest
import tokenizers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimgpt.data.conversation import (
    Conversation,
    Message,
    encode_conversation,
    encode_prompt,
    loss_weights,
)
from dimgpt.model.transformer import Transformer
from dimgpt.text.byte_level import LILLM_SPECIAL_TOKENS, ByteLevelTokenizer, train_byte_level
from dimgpt.text.chat_format import CHAT_FORMATS
from dimgpt.text.chat_template import chat_template
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.special_tokens import SPECIAL_TOKENS
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.export.transformers_folder import write_transformers

Talk = list[tuple[str, str]]
TEXTS = ["user and assistant sat\n\n", "\n\n\n on the mat\n \n", "\n\n\n\na b c"] * 9
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOKENIZERS: dict[str, Tokenizer] = {
    "dimensiongpt": GreedyTokenizer([*SPECIAL_TOKENS, *"abcdefghijklmnopqrstuvwxyz \"'<>|/"]),
    "lillm": train_byte_level(TEXTS, 290, special_tokens=LILLM_SPECIAL_TOKENS, first_space=True),
    "chatml": train_byte_level(TEXTS, 275, special_tokens=CHATML_TOKENS),
    "chatml with a first space": train_byte_level(
        TEXTS, 275, special_tokens=CHATML_TOKENS, first_space=True
    ),
}
SPACED = {
    name: jinja2.Template(
        re.sub(
            r"{% (end)?generation %}",
            "",
            chat_template(TOKENIZERS[name].chat.format, first_space=True),
        ),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("lillm", "chatml with a first space")
}
ROLES = ("system", "user", "assistant", "pirate")
PIECES = [
    " ",
    "\n",
    "\n\n",
    " \n",
    "\t",
    "\u3000",
    "user",
    "assistant\n",
    "</r2>",
    "<r",
    "<|im_",
    "|>",
    "⮜user⮞",
]


def talks(name: str) -> st.SearchStrategy[Talk]:
    """Conversations whose texts spell no special token; DimensionGPT drops its brackets.

    For it, characters that no tokenizer's cleaning drops: `test_tokenizer_files.py` has the others.
    """
    greedy = name == "dimensiongpt"
    letters = st.sampled_from("abc É’\n0") if greedy else st.characters(codec="utf-8")
    text = st.lists(st.one_of(st.sampled_from(PIECES), letters), max_size=8).map("".join)
    special = () if greedy else tuple(TOKENIZERS[name].special_ids)
    text = text.filter(lambda text: not any(token in text for token in special))
    return st.lists(st.tuples(st.sampled_from(ROLES), text), min_size=1, max_size=6)


def ours(talk: Talk) -> tuple[Message, ...]:
    return tuple(Message(role=role, text=text) for role, text in talk)


def theirs(talk: Talk) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in talk]


@pytest.fixture(scope="module")
def exported(
    make_model: Callable[..., Transformer], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Any, set[int]]]:
    """What `transformers` opens for each tokenizer, and the ids that end what its model writes."""
    transformers: ModuleType = pytest.importorskip("transformers", reason="is not installed")
    found = {}
    for name, tokenizer in TOKENIZERS.items():
        folder: Path = tmp_path_factory.mktemp("exported")
        model = make_model(vocab_size=tokenizer.vocab_size, num_layers=1)
        write_transformers(model, tokenizer, folder, dtype=torch.float32)
        ends = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
        found[name] = (transformers.AutoTokenizer.from_pretrained(folder), set(ends))
    return found


def test_every_format_is_tried() -> None:
    assert {tokenizer.chat.format.name for tokenizer in TOKENIZERS.values()} == {*CHAT_FORMATS}


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_ids_weights_stops_and_template_agree(
    exported: dict[str, tuple[Any, set[int]]], name: str, data: st.DataObject
) -> None:
    tokenizer, (opened, ends), talk = TOKENIZERS[name], exported[name], data.draw(talks(name))
    chat = tokenizer.chat
    ids = encode_conversation(Conversation(messages=ours(talk)), tokenizer)
    ids = [*chat.beginning, *ids, *chat.end]
    weights = loss_weights(ids, chat, instruction_weight=0).tolist()
    encoded = opened.apply_chat_template(
        theirs(talk), return_dict=True, return_assistant_tokens_mask=True
    )
    assert encoded["input_ids"] == ids
    assert encoded["assistant_masks"] == weights
    # What the model learns to say ends with a stop, and holds no other.
    assert {*chat.stops} <= ends
    for is_said, pairs in itertools.groupby(zip(weights, ids, strict=True), lambda pair: pair[0]):
        if is_said:
            *said, last = (id for _, id in pairs)
            assert last in chat.stops
            assert not {*said} & {*chat.stops}


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_prompt_is_the_beginning_of_its_answer_and_what_the_template_gives(
    exported: dict[str, tuple[Any, set[int]]], name: str, data: st.DataObject
) -> None:
    tokenizer, (opened, _), talk = TOKENIZERS[name], exported[name], data.draw(talks(name))
    *asked, (_, answer) = [*talk[:-1], ("user", talk[0][1]), talk[-1]]
    prompt = encode_prompt(ours(asked), tokenizer)
    encoded = opened.apply_chat_template(
        theirs(asked), return_dict=True, add_generation_prompt=True
    )
    assert encoded["input_ids"] == prompt
    answered = Conversation(messages=ours([*asked, ("assistant", answer)]))
    ids = [*tokenizer.chat.beginning, *encode_conversation(answered, tokenizer)]
    assert ids[: len(prompt)] == prompt


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACED)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_template_writes_the_first_spaces_that_a_program_does_not(
    name: str, data: st.DataObject
) -> None:
    """An empty answer aside, which no conversation to learn from has."""
    tokenizer, talk = TOKENIZERS[name], data.draw(talks(name))
    assert isinstance(tokenizer, ByteLevelTokenizer)
    talk = [(role, text or "a") for role, text in talk]
    description = json.loads(tokenizer.to_bytes())
    description["pre_tokenizer"]["add_prefix_space"] = False
    plain = tokenizers.Tokenizer.from_str(json.dumps(description))
    text = SPACED[name].render(messages=theirs(talk), add_generation_prompt=False)
    ids = encode_conversation(Conversation(messages=ours(talk)), tokenizer)
    assert plain.encode(text, add_special_tokens=False).ids == ids
