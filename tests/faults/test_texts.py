"""Texts that want to break a tokenizer, or to become its control ids."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimgpt.config import DataConfig
from dimgpt.data.conversation import Conversation, Message, encode_prompt
from dimgpt.data.preparing.encoding import encode_chunk
from dimgpt.text.byte_level import LILLM_SPECIAL_TOKENS, train_byte_level
from dimgpt.text.cleaning import clean_text, normalize_text, restore_text, split_words
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.special_tokens import SPECIAL_TOKENS

pytestmark = pytest.mark.slow
FIXTURES = Path(__file__).parents[1] / "fixtures" / "dimensiongpt_tokenizer"
TEXTS = ["The cat sat on the mat, and the cat ate.", "Ça coûte 5 €, l'été 🐱!", "a\n\tb  c"] * 20
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# With the whole alphabet; with 120 characters, so that unknown ones occur; and of bytes.
GREEDY = GreedyTokenizer.load(FIXTURES / "vocab.txt")
SMALL = GreedyTokenizer.load(FIXTURES / "vocab_nochars.txt")
LILLM = train_byte_level(TEXTS, 300, special_tokens=LILLM_SPECIAL_TOKENS, first_space=True)
CHATML = train_byte_level(TEXTS, 290, special_tokens=CHATML_TOKENS)
PIECES = [*SPECIAL_TOKENS, *" \t\n\r\0⮜⮞«»①❤aé1-\ufe0f\u0301\u200d\ud800🏳🏴🌈☠", "⮜⮜tab⮞⮞"]
PIECES += [*LILLM_SPECIAL_TOKENS, *CHATML_TOKENS, "<|im_st", "art|>"]
ANY_TEXT = st.lists(
    st.one_of(st.sampled_from(PIECES), st.integers(0, 0x10FFFF).map(chr)), max_size=40
).map("".join)


def test_any_text_is_encoded_and_comes_back(fault):
    known = {*SMALL.tokens, "\t", "\n"}

    @given(text=ANY_TEXT)
    @settings(max_examples=500, deadline=None)
    def check(text):
        assert GREEDY.decode(GREEDY.encode(text)) == restore_text(clean_text(text))
        cleaned = normalize_text(text)
        expected = "".join(c if c in known else "\N{REPLACEMENT CHARACTER}" for c in cleaned)
        assert SMALL.decode(SMALL.encode(text)) == restore_text(expected)
        assert CHATML.decode(CHATML.encode(text)) == CHATML.clean(text)
        fault(22)

    check()


@pytest.mark.parametrize(
    ("work", "text", "max_seconds"),
    [
        (clean_text, "x" + " " * 10**6 + "y\n", 5),
        (clean_text, "x" + " \n" * 500_000 + "y", 5),
        (clean_text, "x" + "\n" * 10**6 + "y", 5),
        (clean_text, "x" + "\t" * 10**6 + "\ny", 5),
        (clean_text, "« " * 300_000, 5),
        (clean_text, "\ud800" * 200_000, 5),
        (clean_text, "".join(map(chr, range(0x4E00, 0x9FFF))) * 50, 5),
        (split_words, "a" * 10**6, 3),
        (split_words, " " * 10**6, 3),
        (split_words, " " * 10**6 + "\t", 3),
        (split_words, "! " * 500_000, 3),
        (GREEDY.encode, "entendait" * 111_111, 10),
        (CHATML.encode, "entendait" * 111_111, 10),
        (CHATML.encode, "\0" * 10**6, 10),
    ],
    ids=range(14),
)
def test_a_megabyte_of_one_thing_takes_no_time_to_speak_of(work, text, max_seconds, fault):
    start = time.process_time()
    work(text)
    assert time.process_time() - start < max_seconds
    fault(22)


def say(*roles, text):
    return [Message(role=role, text=text) for role in roles]


def in_data_set(item, tokenizer):
    return encode_chunk([item], tokenizer, DataConfig(min_document_characters=1)).ids


PLACES = {
    "text": lambda tokenizer, text: tokenizer.encode_beginning(text),
    "history": lambda tokenizer, text: encode_prompt(
        say("system", "user", "assistant", "user", text=text), tokenizer
    ),
    "documents": lambda tokenizer, text: in_data_set(text, tokenizer),
    "conversations": lambda tokenizer, text: in_data_set(
        Conversation(messages=tuple(say("user", "assistant", text=text))), tokenizer
    ),
}


def test_no_text_becomes_control_ids_wherever_it_stands(fault):
    control = {
        tokenizer: {*tokenizer.special_ids.values()} - {tokenizer.special_tokens.unknown}
        for tokenizer in (GREEDY, LILLM, CHATML)
    }

    def found(encode, tokenizer, text):
        return [int(id) for id in encode(tokenizer, text) if int(id) in control[tokenizer]]

    expected = {
        (place, tokenizer): found(encode, tokenizer, "abc")
        for place, encode in PLACES.items()
        for tokenizer in control
    }
    assert all(ids for (place, _), ids in expected.items() if place in ("history", "documents"))

    @given(text=ANY_TEXT)
    @settings(max_examples=500, deadline=None)
    def check(text):
        for place, encode in PLACES.items():
            for tokenizer in control:
                typed = f"{text}a{''.join(tokenizer.special_ids)}"
                assert found(encode, tokenizer, typed) == expected[place, tokenizer]
            fault(23)

    check()
