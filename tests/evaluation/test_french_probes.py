"""Claims about the French minimal pairs themselves."""

from collections import Counter

import pytest

from dimgpt.evaluation.french_probes import french_pairs
from dimgpt.text.cleaning import normalize_text

PAIRS = french_pairs()


def test_there_are_enough_pairs_of_enough_kinds_and_each_kind_has_enough():
    kinds = Counter(pair.kind for pair in PAIRS)
    assert len(PAIRS) >= 1_000
    assert len(kinds) >= 12
    assert min(kinds.values()) >= 60
    assert french_pairs() == PAIRS


def test_no_pair_occurs_twice_and_no_sentence_is_right_here_and_wrong_there():
    assert len({(pair.right, pair.wrong) for pair in PAIRS}) == len(PAIRS)
    assert {pair.right for pair in PAIRS}.isdisjoint(pair.wrong for pair in PAIRS)


def test_every_sentence_is_written_as_french_is_and_survives_cleaning():
    for pair in PAIRS:
        for text in pair[1:]:
            assert text[0].isupper()
            assert text.endswith(".")
            assert not {"  ", " .", " ,", "{", "}", "/", ";", "_", "@", "="} & set(
                [*text, *(text[place : place + 2] for place in range(len(text)))]
            ), text
            assert normalize_text(text) == text


def test_both_sentences_of_a_pair_are_about_as_long():
    assert max(abs(len(pair.right) - len(pair.wrong)) for pair in PAIRS) <= 8
    words = Counter(len(pair.right.split()) - len(pair.wrong.split()) for pair in PAIRS)
    assert words[0] > 0.85 * len(PAIRS)


@pytest.mark.parametrize(
    "kind",
    [
        *("verb_number", "verb_number_across_a_noun", "auxiliary", "tense", "participle"),
        *("determiner_gender", "adjective_gender", "relative"),
    ],
)
def test_where_two_forms_compete_each_is_right_as_often_as_wrong(kind):
    balance = Counter()
    for pair in PAIRS:
        if pair.kind == kind:
            balance.update(pair.right.lower().split())
            balance.subtract(pair.wrong.lower().split())
    assert set(balance.values()) <= {0}


def test_each_answer_about_a_fact_is_right_as_often_as_wrong():
    balance = Counter()
    for pair in PAIRS:
        if pair.kind == "facts":
            balance.update(pair.right.lower().rstrip(".").split())
            balance.subtract(pair.wrong.lower().rstrip(".").split())
    assert {word for word, count in balance.items() if count} == set()


def test_samples_of_the_kinds_are_what_a_teacher_would_mark():
    expected = {
        ("verb_number", "Les filles sortent de la maison.", "Les filles sort de la maison."),
        ("negation", "Il n'arrive plus à la maison.", "Il ne plus arrive à la maison."),
        ("elision", "Il regarde l'école avec soin.", "Il regarde la école avec soin."),
        ("clitic_order", "Il me le donne demain.", "Il le me donne demain."),
        ("contraction", "Il parle du pont à son frère.", "Il parle de le pont à son frère."),
        ("facts", "Rome est la capitale de l'Italie.", "Rome est la capitale de l'Espagne."),
    }
    missing = expected - {tuple(pair) for pair in PAIRS}
    assert missing == set()
