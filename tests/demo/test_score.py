import pytest

from dimgpt.data.conversation import Conversation, Message
from dimgpt.demo.corpus import Question, stories
from dimgpt.demo.score import finished_sentences, score_demo


def _question(kind, text, answer, chance):
    messages = (Message(role="user", text=text),)
    return Question(
        kind=kind,
        conversation=Conversation(messages=messages),
        answer=answer,
        held_out="combination",
        chance=chance,
    )


QUESTIONS = [
    _question("sum", "1 + 1 = ?", "2.", 0.1),
    _question("sum", "2 + 2 = ?", "4.", 0.3),
    _question("colour", "De quelle couleur est le ciel ?", "Il est bleu.", 0.5),
]
ALWAYS_TWO = [" 2.\n"] * len(QUESTIONS)


def test_a_kind_counts_its_own_exact_matches_beside_its_mean_chance():
    score = score_demo(QUESTIONS, ALWAYS_TWO, generated_stories=[])
    by_kind = {kind.kind: kind for kind in score.kinds}
    assert by_kind["sum"].num_questions == 2
    assert by_kind["sum"].accuracy == 0.5
    assert by_kind["sum"].chance == pytest.approx(0.2)
    assert by_kind["colour"].accuracy == 0


def test_an_answer_that_only_contains_the_right_one_is_a_mistake():
    score = score_demo(QUESTIONS, ["4. Il est bleu."] * 3, generated_stories=[])
    assert score.macro_average == 0
    assert [question for question, _ in score.mistakes] == QUESTIONS


def test_the_macro_average_weighs_kinds_and_not_questions():
    score = score_demo(QUESTIONS, ALWAYS_TWO, generated_stories=[])
    assert score.macro_average == pytest.approx(0.25)


@pytest.mark.slow
def test_the_corpus_itself_is_wholly_grammatical():
    score = score_demo(QUESTIONS, ALWAYS_TWO, generated_stories=stories(20, seed=5))
    assert score.num_sentences > 60
    assert score.grammatical_ratio == 1


def test_wrong_sentences_lower_the_grammatical_ratio():
    texts = ["Paul chante au parc. Paul chantent au parc.", "Le pomme est à Anna."]
    score = score_demo(QUESTIONS, ALWAYS_TWO, generated_stories=texts)
    assert score.num_sentences == 3
    assert score.num_grammatical == 1


def test_nothing_generated_is_not_grammatical():
    assert score_demo(QUESTIONS, ALWAYS_TWO, generated_stories=[""]).grammatical_ratio == 0


def test_only_a_last_sentence_that_was_cut_short_is_left_out():
    assert finished_sentences("Il pleut. Paul est") == ["Il pleut."]
    assert finished_sentences("Il pleut. Paul est là.") == ["Il pleut.", "Paul est là."]


def test_rows_begin_with_the_easiest_kind():
    rows = score_demo(QUESTIONS, ALWAYS_TWO, generated_stories=[]).rows()
    assert [row["kind"] for row in rows] == ["sum", "colour"]
    assert rows[0]["right"] == "50%"


def test_no_question_is_an_error():
    with pytest.raises(ValueError, match="questions is empty"):
        score_demo([], [], generated_stories=[])
