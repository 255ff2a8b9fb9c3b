"""Pairs of answers in the demo's world."""

import pytest

from dimgpt.demo.corpus import held_out_questions
from dimgpt.demo.preferences import RUDE, UNKNOWN, preferences

pytestmark = pytest.mark.slow


def test_no_held_out_question_is_among_the_pairs():
    asked = {pair.messages[0].text for pair in preferences(1_500, seed=0)}
    held_out = {
        question.conversation.messages[0].text for question in held_out_questions(60, seed=0)
    }
    greetings = {text for text in held_out if text.endswith(" !")}  # one without a name is for all
    assert not asked & (held_out - greetings)


def test_each_rejected_answer_is_wrong_lazy_or_rude_and_never_the_right_one():
    pairs = list(preferences(600, seed=1))
    assert pairs == list(preferences(600, seed=1))
    faults = [pair.rejected.text for pair in pairs]
    assert all(pair.messages[1] != pair.rejected for pair in pairs)
    assert {*UNKNOWN, *RUDE} < {*faults}
    near = [pair for pair in pairs if pair.rejected.text not in (*UNKNOWN, *RUDE)]
    assert 0.65 < len(near) / len(pairs) < 0.85
    sums = [pair for pair in near if "+" in pair.messages[0].text]
    gaps = {abs(int(p.messages[1].text[:-1]) - int(p.rejected.text[:-1])) for p in sums}
    assert gaps <= {*range(1, 11)}
