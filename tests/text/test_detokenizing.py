import pytest

from dimgpt.text.cleaning import clean_text
from dimgpt.text.detokenizing import detokenize


# Expected by hand, from the description of the rule.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Oui , non .", "Oui, non."),
        ("( a ) [ b ]", "(a) [b]"),
        ("deux  , trois", "deux , trois"),  # one pass: one of two spaces stays
        ("(  a", "( a"),
        ("a\u00a0, b", "a\u00a0, b"),  # only the plain space is removed before a word
        ("1 , 2", "1,2"),
        ("1\u00a0,\n2", "1,2"),  # but any white space between digits
        ("1  ,  2  ,  3", "1,2 ,  3"),  # pairs do not overlap: the 2 is used up
        ("1 , a", "1, a"),
        ("\u0661 , \u0662", "\u0661,\u0662"),  # digits of any script
        ('"a" "b"', "«a» «b»"),
        ('"a" "b', "«a» «b"),
        ('« a " b " »', "« a « b » »"),  # quotes that are there do not count
        ("", ""),
    ],
)
def test_each_step_of_the_rule_is_the_originals(text, expected):
    assert detokenize(text) == expected


def test_behind_the_general_cleaning_only_the_spaces_inside_of_quotes_are_gone():
    text = 'Il dit : " oui , non . " ( 3 , 5 % )'
    assert clean_text(detokenize(text)) == 'Il dit : "oui, non." (3,5 %)'
    assert clean_text(text) == text


def test_a_text_without_such_signs_stays():
    text = "L'été, il a (presque) 3,5 ans. « Oui ! »\n\tFin"
    assert detokenize(text) == text
