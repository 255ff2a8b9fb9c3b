from random import Random

import pytest

from dimgpt.demo.grammar import FORMS, agree, conjugate, fill, parse, parts
from dimgpt.demo.lexicon import WORDS, Name, Noun, Place, Verb, feminine, plural
from dimgpt.demo.stories import TEMPLATES

DONKEY = Noun("âne", "ânes", "m")
BEE = Noun("abeille", "abeilles", "f")
DOG = Noun("chien", "chiens", "m")
ANNA, PAUL = Name("Anna", "f"), Name("Paul", "m")


@pytest.mark.parametrize(
    ("singular", "expected"),
    [("chat", "chats"), ("souris", "souris"), ("bateau", "bateaux"), ("cheval", "chevaux")],
)
def test_regular_plurals(singular, expected):
    assert plural(singular) == expected


@pytest.mark.parametrize(
    ("masculine", "expected"),
    [("vert", "verte"), ("rouge", "rouge"), ("fier", "fière"), ("heureux", "heureuse")],
)
def test_regular_feminines(masculine, expected):
    assert feminine(masculine) == expected


@pytest.mark.parametrize(
    ("form", "word", "expected"),
    [
        ("the", DOG, "le chien"),
        ("the", DONKEY, "l'âne"),
        ("of", DOG, "du chien"),
        ("of", BEE, "de l'abeille"),
        ("of", ANNA, "d'Anna"),
        ("that", PAUL, "que Paul"),
        ("that", ANNA, "qu'Anna"),
        ("his", BEE, "son abeille"),
        ("his", DOG, "son chien"),
        ("my", Noun("balle", "balles", "f"), "ma balle"),
        ("your", BEE, "ton abeille"),
        ("how_nice", DOG, "Quel beau chien"),
        ("how_nice", DONKEY, "Quel bel âne"),
        ("how_nice", BEE, "Quelle belle abeille"),
        ("of_all", DONKEY, "d'ânes"),
        ("at", Place("à", Noun("parc", "parcs", "m")), "au parc"),
        ("at", Place("à", Noun("école", "écoles", "f")), "à l'école"),
        ("not_present", Verb("arriver", True), "n'arrive pas"),
        ("i_present", Verb("aimer"), "J'aime"),
    ],
)
def test_words_elide_and_contract(form, word, expected):
    assert FORMS[form](word) == expected


def test_one_masculine_subject_makes_an_adjective_masculine():
    happy = next(word for word in WORDS["feeling"] if word.masculine == "heureux")
    assert agree(happy, ANNA) == "heureuse"
    assert agree(happy, ANNA, ANNA) == "heureuses"
    assert agree(happy, ANNA, PAUL) == "heureux"


@pytest.mark.parametrize(
    ("verb", "tense", "person", "expected"),
    [
        ("manger", "présent", 3, "nous mangeons"),
        ("manger", "imparfait", 3, "nous mangions"),
        ("manger", "imparfait", 2, "il mangeait"),
        ("aimer", "passé composé", 0, "j'ai aimé"),
        ("chanter", "présent", 5, "ils chantent"),
    ],
)
def test_verbs_conjugate(verb, tense, person, expected):
    assert conjugate(Verb(verb), tense, person) == expected


def test_one_masculine_hero_makes_a_pronoun_masculine():
    assert FORMS["they"](ANNA, ANNA) == "elles"
    assert FORMS["they"](ANNA, PAUL) == "ils"
    assert [f"fatigué{FORMS['e'](name)}" for name in (ANNA, PAUL)] == ["fatiguée", "fatigué"]


def test_movements_take_etre_and_agree():
    move = Verb("arriver", True)
    assert conjugate(move, "passé composé", 5) == "ils sont arrivés"
    assert FORMS["perfect"](move, ANNA) == "est arrivée"
    assert FORMS["perfect"](move, ANNA, ANNA) == "sont arrivées"


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_a_template_writes_it_reads(template):
    rng = Random(template)
    for _ in range(20):
        assert parse(template, fill(template, {}, rng)) is not None


def test_parsing_returns_the_words_of_the_sentence():
    words = parse("{name} a {animal a} {colour agree animal}.", "Anna a une vache noire.")
    assert words["name"] == ANNA
    assert words["animal"].plural == "vaches"
    assert words["colour"].masculine == "noir"


def test_a_template_is_not_read_when_text_is_left_over():
    assert parse("{name} mange.", "Paul mange. Et") is None
    assert parse("{name} mange.", "Paul mange") is None


def test_one_variable_is_one_word_and_two_variables_are_two():
    assert parse("{name} et {name2} mangent.", "Paul et Paul mangent.") is None
    assert parse("{name} aime {name}.", "Paul aime Anna.") is None


def test_digits_of_a_variable_do_not_choose_its_words():
    slots = [part for part in parts("{name} {name2}") if not isinstance(part, str)]
    assert slots[0].words == slots[1].words
