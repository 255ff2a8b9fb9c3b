"""Chat formats: what a conversation becomes, what counts in the loss, and what ends an answer."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimgpt.data.conversation import (
    Conversation,
    Message,
    encode_conversation,
    encode_prompt,
    first_exchange,
    loss_weights,
)
from dimgpt.text.byte_level import LILLM_SPECIAL_TOKENS, ByteLevelTokenizer, train_byte_level
from dimgpt.text.chat_format import CHAT_FORMATS
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.special_tokens import SPECIAL_TOKENS

SHARED = Path(__file__).parents[3] / "shared" / "fixtures" / "lillm"
TEXTS = ["user and assistant sat on the mat, a b c"] * 3
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOKENIZERS = {
    "dimensiongpt": GreedyTokenizer([*SPECIAL_TOKENS, *"abcdefghijklmnopqrstuvwxyz "]),
    "lillm": train_byte_level(TEXTS, 280, special_tokens=LILLM_SPECIAL_TOKENS, first_space=True),
    "chatml": train_byte_level(TEXTS, 265, special_tokens=CHATML_TOKENS),
}
ROLES = ("system", "user", "assistant", "pirate")
CASES = (
    json.loads((SHARED / "sft_masks.json").read_text())["conversations"] if SHARED.exists() else []
)


def conversation_of(*messages):
    return Conversation(messages=tuple(Message(role=role, text=text) for role, text in messages))


def holds_special_token(case):
    said = "".join(message["content"] for message in case["conversation"])
    return any(name in said for name in LILLM_SPECIAL_TOKENS)


@pytest.mark.skipif(not CASES, reason="lilLM's own tokenizer is not beside this checkout")
def test_lillms_ids_and_masks_are_the_originals():
    """Without the two cases whose text holds a special token: here it stays text."""
    tokenizer = ByteLevelTokenizer.load(SHARED / "tokenizer" / "tokenizer.json")
    num_masks = 0
    for case in (case for case in CASES if not holds_special_token(case)):
        messages = [(turn["role"], turn["content"]) for turn in case["conversation"]]
        ids = encode_conversation(conversation_of(*messages), tokenizer)
        assert ids == case["ids"]
        assert case["kept_by_filter"] == (len(ids) < 64)
        # Where the assistant speaks first, the original misses its opener: it begins the row.
        if case["kept_by_filter"] and messages[0][0] != "assistant":
            weights = loss_weights(ids, tokenizer.chat, instruction_weight=0.0)[1:]
            assert weights.tolist() == case["loss_mask"][: len(weights)]
            assert not any(case["loss_mask"][len(weights) :])
            num_masks += 1
    assert num_masks == 6


@pytest.mark.skipif(not CASES, reason="lilLM's own tokenizer is not beside this checkout")
def test_lillms_prompt_is_the_originals():
    tokenizer = ByteLevelTokenizer.load(SHARED / "tokenizer" / "tokenizer.json")
    wanted = json.loads((SHARED / "sft_masks.json").read_text())["reference"]
    question = Message(role="user", text="What is the capital of France?")
    assert encode_prompt([question], tokenizer) == wanted["inference_prompt"]
    assert tokenizer.chat.assistant_opener == wanted["assistant_marker_ids"]
    assert tokenizer.chat.stops == (wanted["end_token"],)


@pytest.mark.parametrize("name", CHAT_FORMATS)
def test_a_tokenizer_knows_its_format_by_its_special_tokens(name):
    assert TOKENIZERS[name].chat_format == CHAT_FORMATS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAT_FORMATS)
@given(talk=st.lists(st.tuples(st.sampled_from(ROLES), st.text()), max_size=6))
def test_ids_weights_and_stops_agree(name, talk):
    """The weight is 1 just on the answers of learned roles and on the stops that end them."""
    tokenizer = TOKENIZERS[name]
    chat, expected, ids = tokenizer.chat, [], []
    is_open = False
    for role, text in talk:
        message = chat.encode_message(role, text)
        written = chat.role_of(role)
        if written is None:
            assert message == []
            continue
        opener = chat.encode_message(written, "")[: len(chat._openers[written])]
        for place, id in enumerate(message):
            expected.append(float(is_open))
            is_open = is_open and id not in chat.stops
            if place == len(opener) - 1 and written in chat.format.learned:
                is_open = True
        ids += message
    assert loss_weights(ids, chat, instruction_weight=0.0).tolist() == expected


def test_chatml_is_written_as_its_template():
    tokenizer = TOKENIZERS["chatml"]
    start, end = (tokenizer.special_ids[name] for name in CHATML_TOKENS[1:])
    ids = encode_prompt([Message(role="user", text="a\n")], tokenizer)
    text = [*tokenizer.encode("user\n"), *tokenizer.encode("a\n")]
    new_line = tokenizer.encode("\n")
    assert ids == [start, *text, end, *new_line, start, *tokenizer.encode("assistant\n")]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_first_question_and_its_answer_are_found(name):
    tokenizer = TOKENIZERS[name]
    talk = conversation_of(
        ("assistant", "hi"),
        ("user", "who"),
        ("user", "are you"),
        ("assistant", "a cat"),
        ("user", "no"),
        ("assistant", "yes"),
    )
    opening = encode_conversation(Conversation(messages=talk.messages[:1]), tokenizer)
    ids = encode_conversation(talk, tokenizer)[len(opening) :]
    found = first_exchange(np.array(ids, dtype=np.uint16), tokenizer.chat)
    assert found.prompt == encode_prompt(talk.messages[1:3], tokenizer)
    assert tokenizer.decode(found.question).strip().removesuffix("</r2>") == "are you"
    assert tokenizer.decode(found.answer).strip() == "a cat"
    for silent in (talk.messages[:1], talk.messages[1:2]):
        ids = encode_conversation(Conversation(messages=silent), tokenizer)
        assert first_exchange(np.array(ids), tokenizer.chat) is None


def test_white_space_before_an_answer_does_not_hide_where_it_begins():
    tokenizer = train_byte_level(["\n\n\n"] * 9, 261, special_tokens=CHATML_TOKENS)
    assert tokenizer.token_text(tokenizer.encode("assistant\n\n\n")[-1]) == "\n\n\n"
    ids = tokenizer.chat.encode_message("assistant", " \n\na")
    assert ids == tokenizer.chat.encode_message("assistant", "a")
    weights = loss_weights(ids, tokenizer.chat, instruction_weight=0)
    said = [id for id, weight in zip(ids, weights, strict=True) if weight]
    assert said == [*tokenizer.encode("a"), *tokenizer.stops]


def test_an_opener_cut_at_the_edge_of_a_sequence_opens_nothing():
    chat = TOKENIZERS["lillm"].chat
    ids = chat.encode_message("assistant", "a")
    assert loss_weights(ids, chat, instruction_weight=0.25).max() == 1
    assert np.all(loss_weights(ids[1:], chat, instruction_weight=0.25) == 0.25)
    assert loss_weights(ids[:2], chat, instruction_weight=0.5).tolist() == [0.5, 0.5]


def test_a_tokenizer_without_the_tokens_of_any_format_is_refused_with_what_it_has():
    tokenizer = train_byte_level(TEXTS, 262, special_tokens=("<|endoftext|>",))
    assert tokenizer.chat_format is None
    with pytest.raises(ValueError, match=r"special tokens are <\|endoftext\|>, .*lillm, chatml"):
        encode_prompt([Message(role="user", text="a")], tokenizer)


def test_a_format_whose_tokens_are_missing_is_refused_with_both():
    with pytest.raises(ValueError, match=r"'lillm' is written with <r0>, .* are <\|endoftext\|>"):
        TOKENIZERS["chatml"].use_chat_format("lillm")
    with pytest.raises(ValueError, match="'nope': it must be dimensiongpt, lillm, chatml"):
        TOKENIZERS["chatml"].use_chat_format("nope")
    assert TOKENIZERS["chatml"].chat.format.name == "chatml"
