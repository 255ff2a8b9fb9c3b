"""Byte-level tokenizers: what texts become, and what no text becomes."""

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimgpt.text import byte_level
from dimgpt.text.byte_level import (
    LILLM_SPECIAL_TOKENS,
    TOYGPT_SPECIAL_TOKENS,
    ByteLevelTokenizer,
    train_byte_level,
)
from dimgpt.text.tokenizer import Tokenizer

SHARED = Path(__file__).parents[3] / "shared" / "fixtures" / "lillm"
TEXTS = ["The cat sat on the mat, and the cat ate.", "Ça coûte 5 €, l'été 🐱!", "a\n\tb  c"] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return train_byte_level(TEXTS, 300)


@pytest.fixture(scope="module")
def lillm():
    if not SHARED.exists():
        pytest.skip("lilLM's own tokenizer is not beside this checkout (../shared)")
    return ByteLevelTokenizer.load(SHARED / "tokenizer" / "tokenizer.json")


def test_special_tokens_come_first_and_have_their_parts(tokenizer):
    special = tokenizer.special_tokens
    assert tokenizer.tokens[:16] == LILLM_SPECIAL_TOKENS
    assert tokenizer.vocab_size == 300
    assert (special.unknown, special.padding, special.end_of_text) == (0, 0, 2)
    assert special.start_of_text is None
    assert special.never_produced == [0, 1, *range(3, 16)]


def test_lone_surrogates_are_dropped(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "ab"


def test_the_same_documents_give_the_same_vocabulary(tokenizer):
    assert train_byte_level(TEXTS, 300).fingerprint == tokenizer.fingerprint


@pytest.mark.slow
@given(st.text(alphabet="ab é\n 😀", min_size=30, max_size=80))
def test_cutting_a_long_text_changes_nothing(tokenizer, text):
    whole = tokenizer.encode(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_level, "_SEGMENT_CHARACTERS", 7)
        assert tokenizer.encode(text) == whole


def test_byte_counts_are_those_of_the_text(tokenizer):
    for text in TEXTS[:3]:
        counts = tokenizer.byte_counts()[tokenizer.encode(text)]
        assert counts.sum() == len(text.encode())


def test_a_saved_and_a_pickled_tokenizer_are_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer.json")
    for copy in (
        Tokenizer.load(tmp_path / "tokenizer.json"),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert copy.fingerprint == tokenizer.fingerprint
        assert copy.encode(TEXTS[1]) == tokenizer.encode(TEXTS[1])


def test_a_process_gets_a_tokenizer_with_the_chat_format_that_was_set():
    special = (*LILLM_SPECIAL_TOKENS, "<|im_start|>", "<|im_end|>")
    tokenizer = train_byte_level(TEXTS, 300, special_tokens=special)
    assert tokenizer.chat_format.name == "lillm"  # the first that its special tokens can write
    ids = tokenizer.chat.encode_message("user", "The cat")
    for name in ("chatml", "lillm"):
        tokenizer.use_chat_format(name)
        copy = pickle.loads(pickle.dumps(tokenizer))
        assert copy.chat_format == tokenizer.chat_format
        assert copy.stops == tokenizer.stops
        same = copy.chat.encode_message("user", "The cat") == ids
        assert same == (name == "lillm")


def test_toygpts_special_tokens_follow_those_of_gpt_2():
    gpt_2 = train_byte_level(TEXTS, 290, special_tokens=("<|endoftext|>",))
    toygpt = gpt_2.with_special_tokens(TOYGPT_SPECIAL_TOKENS)
    assert toygpt.tokens[290:] == TOYGPT_SPECIAL_TOKENS
    special = toygpt.special_tokens
    assert (special.padding, special.start_of_text, special.end_of_text) == (290, 294, 0)
    ids = toygpt.enclose(toygpt.encode_array("The cat"))
    assert (ids[0], ids[-1]) == (294, 0)
    assert toygpt.encode_beginning("The cat") == ids[:-1].tolist()
    with pytest.raises(ValueError, match="<pad> are tokens already"):
        toygpt.with_special_tokens(["<pad>"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no tokenizer.json"),
        ("<html>", "no tokenizer.json"),
        ("[1]", "no tokenizer.json"),
        (json.dumps({"version": "1.0", "model": {"type": "WordLevel", "vocab": {}}}), "no token"),
    ],
)
def test_what_is_no_byte_level_tokenizer_is_refused(content, reason, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=reason):
        ByteLevelTokenizer.load(path)


def test_a_vocabulary_without_an_end_is_refused():
    with pytest.raises(ValueError, match="none of the special tokens that end a text"):
        train_byte_level(TEXTS, 290, special_tokens=("<start>",))


def test_too_few_documents_or_too_small_a_vocabulary_are_refused():
    with pytest.raises(ValueError, match="documents give only"):
        train_byte_level(["ab"], 300)
    with pytest.raises(ValueError, match="at least 272"):
        train_byte_level(TEXTS, 271)


@pytest.mark.slow
def test_the_ids_are_those_of_the_original(lillm, encode_template):
    for line in (SHARED / "cases.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        assert encode_template(lillm, case["text"]) == case["ids"], case["text"]
        assert lillm.decode(case["ids"]) == case["decode_skip_special"]
