import hashlib
import json
import pickle
import tracemalloc
from functools import partial
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimgpt.text import greedy_tokenizer
from dimgpt.text.cleaning import (
    cut_between_words,
    normalize_text,
    split_words,
)
from dimgpt.text.greedy_tokenizer import GreedyTokenizer, longest_matches
from dimgpt.text.special_tokens import SPECIAL_TOKENS

HOSTILE_PIECES = [*SPECIAL_TOKENS, *" \t\n\r\0⮜⮞«»①❤aé1-\ufe0f\u0301\ud800", "⮜⮜tab⮞⮞", "⮜ tab⮞"]
ANY_TEXT = st.lists(
    st.one_of(st.sampled_from(HOSTILE_PIECES), st.integers(0, 0x10FFFF).map(chr))
).map("".join)


def test_ids_are_those_of_the_original(cases, tokenizer, small_tokenizer):
    for case in cases:
        assert tokenizer.encode(case["text"]) == case["ids"], case["id"]
        assert small_tokenizer.encode(case["text"]) == case["nochars_ids"], case["id"]


def test_cleaned_text_encodes_to_the_same_ids(cases, tokenizer):
    for case in cases:
        assert tokenizer.encode(case["clean"], clean=False) == case["ids"], case["id"]


def test_decoded_text_is_that_of_the_original(cases, tokenizer, small_tokenizer, fixtures_dir):
    for case in cases:
        assert tokenizer.decode(case["ids"]) == case["decode"], case["id"]
        assert small_tokenizer.decode(case["nochars_ids"]) == case["nochars_decode"], case["id"]
    for case in json.loads((fixtures_dir / "decode_cases.json").read_text("utf-8")):
        if case["kwargs"] == {"token_array": True}:
            assert [tokenizer.decode([id]) for id in case["tokens"]] == case["out"]
        elif not case["kwargs"] and isinstance(case["tokens"], list):
            assert tokenizer.decode(case["tokens"]) == case["out"], case["name"]


def test_decoding_takes_arrays(tokenizer):
    ids = tokenizer.encode("Bonjour à tous")
    assert tokenizer.decode(np.array(ids, dtype=np.uint16)) == "Bonjour à tous"


@pytest.mark.slow
@given(text=ANY_TEXT, length=st.integers(0, 6))
@settings(max_examples=150, deadline=None)
def test_segments_and_memories_change_no_id(small_tokenizer, text, length):
    text = normalize_text(text)
    ids = {token: id for id, token in enumerate(small_tokenizer.tokens) if id >= 10}
    ids |= {"\t": 3, "\n": 4}
    expected = [
        ids.get(piece, 0) for word in split_words(text) for piece in longest_matches(word, ids)
    ]
    assert small_tokenizer.encode(text, clean=False) == expected
    in_segments = partial(cut_between_words, length=length)
    with mock.patch.object(greedy_tokenizer, "cut_between_words", in_segments):
        assert small_tokenizer.encode(text, clean=False) == expected


@pytest.mark.slow
@pytest.mark.parametrize("part", ["l'an deux mille\n", "deux,mille;"])
def test_a_large_document_takes_little_memory_besides_itself(tokenizer, part):
    text = part * (6_000_000 // len(part))
    tracemalloc.start()
    try:
        tokenizer.encode_array(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50_000_000  # all words at once take 80 MB and more


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_a_special_token_typed_by_a_user_stays_text(tokenizer, token):
    assert tokenizer.decode(tokenizer.encode(f"a {token} b")) == f"a {token[1:-1]} b"


def test_tabulations_and_line_ends_have_their_ids(tokenizer):
    assert [id for id in tokenizer.encode("a\tb\nc") if id < 10] == [3, 4]


def test_an_array_holds_the_same_ids(tokenizer):
    ids = tokenizer.encode_array("Où est-il ? ❤\ufe0f")
    assert ids.dtype == np.uint16
    assert ids.tolist() == tokenizer.encode("Où est-il ? ❤\ufe0f")
    assert tokenizer.encode_array("").tolist() == []


@pytest.mark.slow
def test_a_vocabulary_too_large_for_16_bits_encodes():
    tokens = [*SPECIAL_TOKENS, *(chr(0x10000 + i) for i in range(2**16)), "a"]
    tokenizer = GreedyTokenizer(tokens)
    assert tokenizer.encode("aa") == [len(tokens) - 1] * 2


def test_the_longest_token_wins_and_misses_stay_alone():
    assert list(longest_matches("abcabz", {"a", "ab", "abc", "b"})) == ["abc", "ab", "z"]
    assert list(longest_matches("x" * 20, {"x" * 16, "x" * 20, "x"})) == ["x" * 16, *"xxxx"]


def test_bytes_of_tokens_add_up_to_the_cleaned_text(tokenizer):
    text = "Ça coûte 3 € ❤\n\tfin"
    counts = tokenizer.byte_counts()
    assert counts[tokenizer.encode(text)].sum() == len(text.encode())
    assert counts[:10].tolist() == [1, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    assert (counts.dtype, counts.shape) == (np.int32, (2000,))


def test_a_saved_vocabulary_has_the_originals_bytes(tokenizer, fixtures_dir, tmp_path):
    path = tmp_path / "new" / "vocab.txt"
    tokenizer.save(str(path))
    assert path.read_bytes() == (fixtures_dir / "vocab.txt").read_bytes()
    assert tokenizer.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
    assert GreedyTokenizer.load(path).tokens == tokenizer.tokens
    assert [entry.name for entry in path.parent.iterdir()] == ["vocab.txt"]


def test_a_copy_for_another_process_encodes_alike_and_is_small(tokenizer):
    tokenizer.encode(" ".join(map(str, range(10_000))))
    copied = pickle.dumps(tokenizer)
    assert len(copied) < 50_000
    assert pickle.loads(copied).encode("Bonjour") == tokenizer.encode("Bonjour")


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["a", "b"], "line 1: found 'a' where every vocabulary has '⮜unknown⮞'"),
        ([*SPECIAL_TOKENS[:5]], "line 6: found '' where"),
        ([token + "\r" for token in SPECIAL_TOKENS], r"line 1: found '⮜unknown⮞\\r'"),
        ([*SPECIAL_TOKENS, "a", ""], "line 12: the token '' is empty"),
        ([*SPECIAL_TOKENS, "a", "b", "a"], "line 13: the token 'a' is already on line 11"),
        ([*SPECIAL_TOKENS, "⮜user⮞"], "line 11: the token '⮜user⮞' is already on line 8"),
        ([*SPECIAL_TOKENS, "a" * 17], "line 11: .* has 17 characters"),
        ([*SPECIAL_TOKENS, "a\r"], "line 11: .* holds a tabulation or a line end"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused_with_its_line(tmp_path, tokens, message):
    path = tmp_path / "vocab.txt"
    path.write_bytes("\n".join(tokens).encode())
    with pytest.raises(ValueError, match=message) as error:
        GreedyTokenizer.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_vocabulary_names_what_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"create_data\.ipynb"):
        GreedyTokenizer.load(tmp_path / "vocab.txt")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not UTF-8 at byte 0"):
        GreedyTokenizer.load(tmp_path / "vocab.txt")
