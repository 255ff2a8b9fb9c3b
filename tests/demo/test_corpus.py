import itertools
import re

import pytest

from dimgpt.data.conversation import Conversation, Message
from dimgpt.demo import corpus
from dimgpt.demo.corpus import QUESTION_KINDS, conversations, held_out_questions, stories
from dimgpt.demo.stories import is_grammatical, split_sentences

PER_KIND = 60


@pytest.fixture(scope="module")
def questions():
    return held_out_questions(PER_KIND, seed=0)


@pytest.fixture(scope="module")
def training():
    return list(conversations(4000, seed=0))


@pytest.fixture(scope="module")
def documents():
    return list(stories(2000, seed=0))


def test_a_seed_gives_one_corpus_and_another_seed_another():
    first, again, other = (list(stories(50, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert set(first).isdisjoint(other)
    first, again, other = (list(conversations(50, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.slow
def test_stories_are_all_different(documents):
    assert len(set(documents)) == len(documents)


@pytest.mark.slow
def test_every_sentence_of_the_stories_is_grammatical(documents):
    sentences = {sentence for story in documents[:150] for sentence in split_sentences(story)}
    assert [sentence for sentence in sentences if not is_grammatical(sentence)] == []


@pytest.mark.parametrize(
    "sentence",
    [
        "La vache de Paul est timide.",
        "L'âne d'Anna est prudent.",
        "Anna a une vache noire.",
        "Anna pense que Paul est content.",
        "Paul pense qu'Anna est contente.",
        "Anna et Zoé étaient heureuses.",
        "Hier, Léa est arrivée au parc.",
        "Les chevaux sont blancs.",
        '"Je chante avec l\'oiseau", dit Paul.',
    ],
)
def test_the_checker_accepts_good_french_of_this_world(sentence):
    assert is_grammatical(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "La vache de Paul est prudent.",  # gender
        "Le âne d'Anna est prudent.",  # elision
        "L'âne de Anna est prudent.",
        "Paul pense que Anna est contente.",
        "Paul pense qu'Anna est content.",
        "Anna a un vache noire.",  # article
        "Anna a une vache noirs.",  # number
        "Anna et Zoé étaient heureux.",
        "Anna et Paul étaient heureuses.",
        "Anna et Anna étaient heureuses.",
        "Hier, Léa est arrivé au parc.",  # participle
        "Hier, Léa a arrivée au parc.",  # auxiliary
        "Hier, Léa est arrivée à le parc.",  # contraction
        "Hier, Léa est arrivée au école.",
        "Les cheval sont blancs.",  # plural
        "Les chevaux sont blanches.",
        "Les chevaux est blancs.",  # conjugation
        '"Je chantes avec l\'oiseau", dit Paul.',
        "La vache vache de Paul est timide.",  # word salad
        "Vache la Paul timide est de.",
        "la vache de Paul est timide.",
        "La vache de Paul est timide",
        "",
    ],
)
def test_the_checker_rejects_faults(sentence):
    assert not is_grammatical(sentence)


@pytest.mark.slow
def test_most_sentences_break_when_two_neighbouring_words_change_places(documents):
    sentences = [sentence for story in documents[:40] for sentence in split_sentences(story)]
    swaps = [_swap_middle(sentence) for sentence in sentences]
    broken = [not is_grammatical(swap) for swap in swaps]
    assert sum(broken) > 0.95 * len(broken)


def _swap_middle(sentence):
    words = sentence.split(" ")
    middle = len(words) // 2
    words[middle - 1 : middle + 1] = reversed(words[middle - 1 : middle + 1])
    return " ".join(words)


def test_quotes_stay_with_their_sentence():
    text = '"Je chante avec le chat", dit Paul. Il pleut ! Qui chante ? Paul.'
    assert split_sentences(text) == [
        '"Je chante avec le chat", dit Paul.',
        "Il pleut !",
        "Qui chante ?",
        "Paul.",
    ]


@pytest.mark.slow
def test_every_kind_has_as_many_different_questions_as_asked(questions):
    for kind in QUESTION_KINDS:
        prompts = [question.conversation for question in questions if question.kind == kind]
        assert len(set(prompts)) == PER_KIND


@pytest.mark.slow
def test_held_out_questions_end_with_the_user_and_have_a_short_answer(questions):
    for question in questions:
        assert question.conversation.messages[-1].role == "user"
        assert 0 < len(question.answer.split()) <= 9
        assert 0 < question.chance <= 0.5


@pytest.mark.slow
def test_too_many_questions_a_kind_is_an_error():
    with pytest.raises(ValueError, match="per_kind is 500"):
        held_out_questions(500, seed=0)


@pytest.mark.slow
def test_training_conversations_alternate_and_end_with_the_assistant(training):
    for conversation in training[:500]:
        roles = [message.role for message in conversation.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)


@pytest.mark.slow
def test_no_held_out_question_occurs_in_training(questions, training):
    asked = {message.text for one in training for message in one.messages if message.role == "user"}
    held_out = {question.conversation.messages[-1].text for question in questions}
    assert asked.isdisjoint(held_out)


def test_no_held_out_text_occurs_in_training_or_in_a_story(questions, training, documents):
    texts = [_text(q.conversation) for q in questions if q.held_out == "text"]
    seen = "\n".join(itertools.chain(map(_text, training), documents))
    assert len(texts) >= 50
    assert [text for text in texts if text in seen] == []


def _text(conversation):
    """Return the first message without its question."""
    return " ".join(split_sentences(conversation.messages[0].text)[:-1])


@pytest.mark.slow
def test_no_held_out_sum_occurs_in_any_order_or_wording(questions, training):
    held_out = {
        frozenset(_numbers(q.conversation.messages[-1].text)) for q in questions if q.kind == "sum"
    }
    trained = [
        frozenset(_numbers(message.text))
        for one in training
        for message in one.messages
        if "+" in message.text
    ]
    assert len(trained) > 300
    assert held_out.isdisjoint(trained)


def _numbers(text):
    return re.findall(r"\d+", text)


def test_no_held_out_verb_person_and_tense_occurs_in_training(questions, training):
    held_out = {q.conversation.messages[-1].text for q in questions if q.kind == "conjugation"}
    answers = {q.answer for q in questions if q.kind == "conjugation"}
    exchanges = [pair for one in training for pair in itertools.pairwise(one.messages)]
    asked = [pair for pair in exchanges if pair[0].text.startswith("Conjugue ")]
    assert len(asked) > 200
    assert [pair for pair in asked if pair[0].text in held_out] == []
    ambiguous = {pair[1].text for pair in asked} & answers
    assert ambiguous == set()


def _about_texts(conversation):
    """Yield (facts, question, answer); the facts are what each name of the text does."""
    first = conversation.messages[0].text
    if not first.startswith("Ce matin, "):
        return
    *told, _ = split_sentences(first.removeprefix("Ce matin, "))
    facts = dict(sentence.removesuffix(".").split(" ", 1) for sentence in told)
    messages = iter(conversation.messages)
    for question, answer in zip(messages, messages, strict=True):
        yield facts, split_sentences(question.text)[-1], answer.text


def _right_answer(facts, question):
    """Find the answer by comparing words, without the templates that ask."""
    kind, rest = question.removesuffix(" ?").split(" ", 1)
    name = re.findall(r"\w+", rest)[-1]
    if kind == "De":
        return f"C'est {facts[name].split(' ', 1)[1]}."
    return f"Ce matin, {name} {facts[name]}."


def test_answers_about_texts_are_right(questions, training):
    asked = [turn for one in training for turn in _about_texts(one)]
    texts = [question for question in questions if question.held_out == "text"]
    for one in texts:
        answer = (Message(role="assistant", text=one.answer),)
        asked += _about_texts(Conversation(messages=(*one.conversation.messages, *answer)))
    assert {question.split(" ")[0] for _, question, _ in asked} == {"Que", "Où", "De", "Combien"}
    assert [turn for turn in asked if _right_answer(*turn[:2]) != turn[2]] == []


def test_a_kind_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setitem(QUESTION_KINDS, "sums", 1)
    with pytest.raises(ValueError, match="QUESTION_KINDS has 'sums': choose of sum, .*, how many"):
        held_out_questions(2, seed=0)


@pytest.mark.parametrize("kind", ["sum", "where"])
def test_a_kind_without_its_line_is_neither_trained_nor_scored(kind, monkeypatch):
    signs = {"sum": r"\+", "where": "^Où "}

    def count():
        asked = [m.text for one in conversations(300, seed=0) for m in one.messages[::2]]
        last = [split_sentences(text)[-1] for text in asked if "-tu" not in text]
        return sum(re.search(signs[kind], text) is not None for text in last)

    assert count() > 5
    others = {other: weight for other, weight in QUESTION_KINDS.items() if other != kind}
    monkeypatch.setattr(corpus, "QUESTION_KINDS", others)  # in the order that others count on
    assert count() == 0
    assert kind not in {question.kind for question in held_out_questions(2, seed=0)}


@pytest.mark.parametrize(("kind", "mark"), [("sum", "+"), ("conjugation", "Conjugue ")])
def test_a_kind_of_more_weight_is_asked_more_often(kind, mark, monkeypatch):
    def count():
        return sum(mark in m.text for one in conversations(400, seed=0) for m in one.messages[::2])

    before = count()
    monkeypatch.setitem(QUESTION_KINDS, kind, 40)
    assert count() > 1.5 * before
