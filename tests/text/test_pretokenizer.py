import time

import pytest

from dimgpt.text.pretokenizer import split_words


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
