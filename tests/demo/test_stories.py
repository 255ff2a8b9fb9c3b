"""Claims about the stories that a person reads, checked without the templates that wrote them."""

import re
from random import Random

import pytest

from dimgpt.demo.corpus import stories
from dimgpt.demo.lexicon import WORDS
from dimgpt.demo.plots import TALES
from dimgpt.demo.stories import is_grammatical, split_sentences

NAMES = {name.text: name.gender for name in WORDS["name"]}
MOODS = ("veut", "rêve", "faim", "froid", "peur", "cadeau", "cherche", "ne trouve plus")
MOODS += ("trouvent", "jouent", "prépare", "garde")


@pytest.fixture(scope="module")
def documents():
    return list(stories(1500, seed=1))


@pytest.fixture(scope="module")
def tales(documents):
    return [story for story in documents if _is_tale(story)]


def _is_tale(story):
    """Tell by its structure whether a text is a story: begun, spoken, asked, and ended."""
    sentences = split_sentences(story)
    return (
        len(sentences) >= 5
        and sentences[0].startswith("Un jour, ")
        and any(mood in sentences[0] for mood in MOODS)
        and re.search(r'"[^"]+ [?!]" (dit|demande|répond) ', story) is not None
        and re.search(r"\b(ils?|elles?)\b", story, re.IGNORECASE) is not None
        and "?" in story
        and sentences[-1].endswith(".")
    )


def _heroes(text):
    return {name for name in re.findall(r"\w+", text) if name in NAMES}


@pytest.mark.slow
def test_a_third_of_the_stories_are_tales_and_a_part_stays_scenes(documents, tales):
    assert len(tales) > len(documents) / 3
    scenes = [story for story in documents if story.startswith("Ce matin, ")]
    assert len(scenes) > len(documents) / 3


def test_a_tale_has_two_heroes_who_are_there_from_its_first_sentences_to_the_last(tales):
    for tale in tales:
        sentences = split_sentences(tale)
        assert len(_heroes(tale)) == 2
        assert _heroes(" ".join(sentences[:4])) == _heroes(tale)
        assert _heroes(sentences[-1])


def test_a_tale_is_as_short_as_a_small_context(tales):
    assert max(len(re.findall(r"\w+|[^\w\s]", tale)) for tale in tales) < 100


@pytest.mark.slow
def test_every_plot_is_told_about_as_often(tales):
    counts = dict.fromkeys(TALES, 0)
    for tale in tales:
        sentences = split_sentences(tale)
        for plot in counts:
            counts[plot] += all(map(_could_be, sentences, plot))
    assert min(counts.values()) > len(tales) / (2 * len(TALES))
    assert sum(counts.values()) == len(tales)


def _could_be(sentence, step):
    """Tell whether the words around the slots of a template are those of the sentence."""
    patterns = [".*".join(map(re.escape, re.split(r"\{.*?\}", one))) for one in step]
    return any(re.fullmatch(pattern, sentence) for pattern in patterns)


def test_pronouns_have_the_gender_of_the_heroes(tales):
    animals = {noun.singular for noun in WORDS["animal"]}
    checked = 0
    for tale in tales:
        genders = {NAMES[name] for name in _heroes(tale)}
        if len(genders) == 1 and animals.isdisjoint(re.findall(r"\w+", tale)):
            wrong = (
                r"\b(ils?|content|ravi)\b" if genders == {"f"} else r"\b(elles?|contente|ravie)\b"
            )
            text = re.sub(r"\bil (neige|pleut)", "", tale)
            assert re.search(wrong, text, re.IGNORECASE) is None, tale
            checked += 1
    assert checked > 100


def test_names_in_tales_follow_a_space_and_never_a_quotation_mark(tales):
    assert [tale for tale in tales if re.search(rf'"({"|".join(NAMES)})\b', tale)] == []


def test_quotations_are_closed_in_their_sentence_and_never_end_it(documents):
    for sentence in {one for story in documents for one in split_sentences(story)}:
        assert sentence.count('"') in (0, 2)
        assert not sentence.endswith('"')
        assert re.search(r'[^ ][?!:]|" ?\.|[?!]",', sentence) is None, sentence


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_seed_every_sentence_is_grammatical(seed):
    sentences = {one for story in stories(20, seed=100 + seed) for one in split_sentences(story)}
    assert [sentence for sentence in sentences if not is_grammatical(sentence)] == []


@pytest.mark.slow
def test_a_pronoun_of_the_other_gender_is_refused_beside_its_name(tales):
    other = {"il": "elle", "elle": "il"}
    told = {one for tale in tales[:200] for one in split_sentences(tale)}
    about_one = [one for one in told if one.startswith(tuple(NAMES)) and len(_heroes(one)) == 1]
    wrong = {re.sub(r"\b(il|elle)\b", lambda match: other[match[0]], one) for one in about_one}
    assert len(wrong - told) > 50
    assert [one for one in wrong - told if is_grammatical(one)] == []


@pytest.mark.parametrize("mark", ['"', "?", "!", ".", ",", ":"])
def test_a_missing_mark_is_refused(tales, mark):
    rng = Random(0)
    sentences = sorted({one for tale in tales for one in split_sentences(tale) if mark in one})
    for sentence in rng.sample(sentences, 20):
        place = sentence.rindex(mark)
        assert not is_grammatical(sentence[:place] + sentence[place + 1 :])


@pytest.mark.parametrize(
    "sentence",
    [
        "Emma est triste, car elle aime beaucoup son écharpe.",
        '"As-tu vu ma balle ?" demande Emma à Tom.',
        "Tom cherche sous la table et il trouve la balle !",
        '"Quel bel avion !" dit Noé.',
        '"Quelle belle écharpe !" dit Noé.',
        "Léa et Zoé rient : elles sont ravies.",
        "Léa et Tom rient : ils sont ravis.",
        "Mais Léa est fatiguée et elle reste au lit.",
        '"J\'ai peur du loup !" répond Marc.',
        "\"J'ai peur de l'orage !\" répond Marc.",
        "Un jour, c'est la fête d'Anna et Tom a un cadeau.",
        "La vache dort sous le banc : elle a mangé le pain !",
    ],
)
def test_the_checker_accepts_good_french_of_the_tales(sentence):
    assert is_grammatical(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "Emma est triste, car il aime beaucoup son écharpe.",  # pronoun
        "Emma est triste, car elle aime beaucoup sa écharpe.",  # possessive
        "Emma est inquiet, car elle aime beaucoup son écharpe.",  # adjective
        "Emma est triste, car elle aiment beaucoup son écharpe.",  # verb
        "Il est triste et elle pleure.",
        '"As-tu vu mon balle ?" demande Emma à Tom.',
        '"As-tu vu ma balle ? demande Emma à Tom.',  # quotation
        'As-tu vu ma balle ?" demande Emma à Tom.',
        '"As-tu vu ma balle ?" demande Emma à Emma.',
        '"As-tu vu ma balle?" demande Emma à Tom.',  # space
        '"As-tu vu ma balle ?" demandes Emma à Tom.',
        '"Quel beau avion !" dit Noé.',
        '"Quel belle écharpe !" dit Noé.',
        "Léa et Zoé rient : ils sont ravis.",
        "Léa et Tom rient : elles sont ravies.",
        "Léa et Tom rient : ils sont ravies.",
        "Léa et Tom rit : ils sont ravis.",
        "Mais Léa est fatigué et elle reste au lit.",
        "Mais Léo est fatiguée et il reste au lit.",
        '"J\'ai peur de le loup !" répond Marc.',
        "Un jour, c'est la fête de Anna et Tom a un cadeau.",
        "La vache dort sous le banc : il a mangé le pain !",
        "La vache dort sous la banc : elle a mangé le pain !",
    ],
)
def test_the_checker_rejects_faults_in_tales(sentence):
    assert not is_grammatical(sentence)
