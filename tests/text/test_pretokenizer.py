import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dimgpt.text.pretokenizer import (
    cut_between_words,
    split_at_spaces,
    split_plain_words,
    split_words,
)

PLAIN_TEXT = st.text(st.sampled_from("  \t\nab1!é❤①\0\r"))


def test_words_are_those_of_the_original(cases):
    # two made-up cases are aimed at a defect of the original's expression; their ids agree
    plain = [case for case in cases if "!pstnhsuae]" not in case["clean"]]
    assert [split_words(case["clean"]) for case in plain] == [case["pretokens"] for case in plain]


def test_joined_words_are_the_text(cases):
    assert ["".join(split_words(case["clean"])) for case in cases] == [
        case["clean"] for case in cases
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a   b", ["a", "  ", " b"]),
        ("a   ⮜tab⮞ b", ["a", "   ", "⮜tab⮞", " b"]),
        ("12x² ③", ["12", "x", "²", " ③"]),
        ("⮜user⮞ ⮜tab", ["⮜", "user", "⮞", " ⮜", "tab"]),
        ("   ", ["   "]),
        ("", []),
    ],
)
def test_each_rule_applies(text, words):
    assert split_words(text) == words


@pytest.mark.parametrize("text", ["a" * 10**6, " " * 10**6, " " * 10**6 + "⮜tab⮞", "! " * 500_000])
def test_a_megabyte_of_one_thing_takes_no_time_to_speak_of(text):
    start = time.process_time()
    split_words(text)
    assert time.process_time() - start < 3


@given(text=PLAIN_TEXT, length=st.integers(0, 6))
@settings(max_examples=300, deadline=None)
@example("a   b  \t c", 2)
def test_no_word_crosses_from_one_segment_to_the_next(text, length):
    segments = list(cut_between_words(text, length))
    words = [split_plain_words(segment) for segment in segments]
    assert sum(words, []) == split_plain_words(text)
    assert all(len(segment) >= length for segment in segments[:-1])
    assert all(len("".join(segment_words[:-1])) <= length for segment_words in words)


@given(text=PLAIN_TEXT)
@settings(max_examples=300, deadline=None)
@example("a   b  ")
@example("  \n a")
def test_no_word_crosses_from_one_stretch_to_the_next(text):
    first, *others = split_at_spaces(text)
    words = [split_plain_words(part) for part in (first, *(" " + other for other in others))]
    assert sum(words, []) == split_plain_words(text)
