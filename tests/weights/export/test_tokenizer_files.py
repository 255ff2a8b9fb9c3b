import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from dimgpt.text.cleaning import clean_text, transliterate
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.special_tokens import SPECIAL_TOKENS
from dimgpt.weights.export.charsmap import transliterations
from dimgpt.weights.export.transformers_folder import greedy_tokenizer_json

FIXTURES = Path(__file__).parents[2] / "fixtures" / "dimensiongpt_tokenizer"
SHARED = Path(__file__).parents[3].parent / "shared" / "fixtures" / "dimensiongpt_tokenizer"
KEYS = {"vocab.txt": "ids", "vocab_nochars.txt": "nochars_ids"}
HOSTILE = [*SPECIAL_TOKENS, *" \t\n\r⮜⮞«»①❤é1-’\ufe0f\u0301", "🏳\ufe0f\u200d🌈", " »", " \t\n"]


@pytest.fixture(scope="module", params=KEYS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def ours(name: str) -> GreedyTokenizer:
    return GreedyTokenizer.load(FIXTURES / name)


@pytest.fixture(scope="module")
def theirs(ours: GreedyTokenizer) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(json.dumps(greedy_tokenizer_json(ours.tokens)))


@pytest.fixture(scope="module")
def strict(ours: GreedyTokenizer) -> tokenizers.Tokenizer:
    """One that reads no special token out of text."""
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(greedy_tokenizer_json(ours.tokens)))
    tokenizer.encode_special_tokens = True
    return tokenizer


def cases() -> list[dict]:
    folder = SHARED if SHARED.is_dir() else FIXTURES
    return [json.loads(line) for line in (folder / "cases.jsonl").read_text("utf-8").splitlines()]


def encoded(tokenizer: tokenizers.Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.slow
def test_ids_are_those_of_the_original_on_every_case(
    name: str, strict: tokenizers.Tokenizer
) -> None:
    for case in cases():
        assert encoded(strict, case["text"]) == case[KEYS[name]], case["id"]


@pytest.mark.slow
def test_only_texts_that_spell_special_tokens_differ_where_those_are_read(
    name: str, theirs: tokenizers.Tokenizer
) -> None:
    for case in cases():
        is_spelled = any(token in case["text"] for token in SPECIAL_TOKENS)
        assert encoded(theirs, case["text"]) == case[KEYS[name]] or is_spelled, case["id"]


def test_decoding_is_ours_on_every_case(
    name: str, ours: GreedyTokenizer, theirs: tokenizers.Tokenizer
) -> None:
    special = list(range(len(SPECIAL_TOKENS)))
    for ids in ([case[KEYS[name]] for case in cases()], [special, list(range(ours.vocab_size))]):
        for row in ids:
            assert theirs.decode(row, skip_special_tokens=False) == ours.decode(row)


# Signs on the character before: several in a row with nothing before them are the documented loss.
ANY_TEXT = st.lists(
    st.one_of(
        st.sampled_from(HOSTILE),
        st.characters(codec="utf-8", exclude_categories=("Mn", "Mc", "Me", "Lm")),
        st.characters(codec="utf-8", categories=("Mn", "Mc", "Me")).map(lambda sign: "e" + sign),
    )
).map("".join)


@pytest.mark.slow
@given(text=ANY_TEXT)
@settings(max_examples=200, deadline=None)
def test_ids_are_ours_on_any_text(
    ours: GreedyTokenizer, strict: tokenizers.Tokenizer, text: str
) -> None:
    assert encoded(strict, text) == ours.encode(text)


def test_signs_in_a_row_with_nothing_before_them_are_the_only_known_loss(
    ours: GreedyTokenizer, strict: tokenizers.Tokenizer
) -> None:
    signs = "\N{ARABIC FATHA}\N{ARABIC KASRA}"  # a, i
    assert encoded(strict, f"b{signs}") == ours.encode(f"b{signs}")
    assert encoded(strict, signs) == ours.encode(signs[0]) != ours.encode(signs)


@pytest.mark.slow
def test_nothing_beyond_the_tables_is_written() -> None:
    assert all(transliterate(chr(code)) == "" for code in range(0x20000, 0x110000, 251))
    assert transliterations()["東"] == "Dong "


@pytest.mark.slow
def test_a_long_word_is_no_unknown(ours: GreedyTokenizer, strict: tokenizers.Tokenizer) -> None:
    text = "abandonner" * 200
    assert encoded(strict, text) == ours.encode(text)


def test_a_text_begins_with_its_token_where_special_tokens_are_added(
    ours: GreedyTokenizer, theirs: tokenizers.Tokenizer
) -> None:
    assert theirs.encode("Bonjour").ids == ours.encode_beginning("Bonjour")


def test_offsets_point_into_the_text(theirs: tokenizers.Tokenizer) -> None:
    text = "L’été 東京\n"
    encoding = theirs.encode(text, add_special_tokens=False)
    spans = [text[start:end] for start, end in encoding.offsets]
    assert "".join(spans[:2])[:2] == "L’"
    assert clean_text(text).startswith("L'été")


def test_it_has_as_many_tokens_as_ours(ours: GreedyTokenizer, theirs: tokenizers.Tokenizer) -> None:
    assert theirs.get_vocab_size() == ours.vocab_size
    assert len(theirs.to_str()) < 2_000_000
