"""The questions of the demo's world that have one right answer, kind by kind.

Each kind draws items from a finite or endless set; a hash of an item's key says once and for all
whether the item is held out, so that training and scoring can never meet.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Literal

from dimgpt.demo import lexicon
from dimgpt.demo.grammar import (
    PERSONS,
    TENSES,
    a,
    agree,
    agree_all,
    capitalize,
    conjugate,
    fill,
)
from dimgpt.demo.stories import FACTS, OPENING, scene_facts, tell

HeldOut = Literal["fact", "combination", "wording", "text"]

HELD_OUT_SHARE = 0.25
"""Share of each kind's items that training never sees, in 0..1."""

OPENERS = (
    "{} ?",
    "Dis-moi {}.",
    "Sais-tu {} ?",
    "Peux-tu me dire {} ?",
    "Devine {}.",
    "À ton avis, {} ?",
    "S'il te plaît, {} ?",
    "Je voudrais savoir {}.",
    "Question : {} ?",
    "Et maintenant, {} ?",
    "Rappelle-moi {}.",
    "J'ai oublié {}.",
)
DIRECT_OPENERS = (
    "{} ?",
    "Bonjour, {} ?",
    "Question : {} ?",
    "S'il te plaît, {} ?",
    "Dis, {} ?",
    "Alors, {} ?",
    "Au fait, {} ?",
    "Et toi, {} ?",
    "Salut, {} ?",
    "Une question : {} ?",
    "Bon, {} ?",
    "Excuse-moi, {} ?",
    "Pardon, {} ?",
    "Bonsoir, {} ?",
    "Dis donc, {} ?",
    "Allez, {} ?",
)
IDENTITY = (
    ("qui es-tu|comment t'appelles-tu|quel est ton nom|tu es qui", "Je suis DimensionGPT."),
    ("que fais-tu|quel est ton métier|que sais-tu faire|à quoi sers-tu", "Je réponds à tout."),
    ("où vis-tu|où habites-tu|où es-tu|où travailles-tu", "Je vis dans cette machine."),
    ("quelle est ta langue|quelle langue parles-tu|que parles-tu", "Je parle français."),
    ("comment vas-tu|est-ce que tu vas bien|ça va|tout va bien", "Je vais bien, merci."),
    ("es-tu humain|es-tu une machine|qu'es-tu|es-tu vivant", "Je suis une machine."),
)
HELLOS = ("Bonjour", "Bonsoir", "Salut", "Au revoir")
PLAIN_HELLO_RATIO = 0.2
"""Share of greetings without a name, which are too few to be held out, in 0..1."""
INTRODUCTIONS = ("je m'appelle {}", "je suis {}", "c'est {}", "moi, c'est {}")

# Answers repeat the text's own words: to find a fact again is what so small a model can learn.
_PLACE, _USE, _EAT = (f"{OPENING}{FACTS[family]}" for family in ("place", "use", "eat"))
_COUNT, _CARE = (f"{OPENING}{FACTS[family]}" for family in ("count", "care"))
TEXT_QUESTIONS: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "place": (("where", "Où {act present} {name} ?", _PLACE),),
    "use": (
        ("who does what", "Que {use present} {name} ?", _USE),
        (
            "colour told",
            "De quelle couleur est {thing the} {name of} ?",
            "C'est {thing a} {colour agree thing}.",
        ),
    ),
    "eat": (("who does what", "Que {eat present} {name} ?", _EAT),),
    "count": (("how many", "Combien {food of_all} {eat present} {name} ?", _COUNT),),
    "care": (("who does what", "Que {care present} {name} ?", _CARE),),
}
TEXT_KINDS = ("where", "who does what", "colour told", "how many")


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """A question with its one right answer."""

    kind: str
    key: str
    """What makes the item itself: two wordings of one sum share a key."""
    question: str
    answer: str
    held_out: HeldOut
    """What is new in a held-out item of this kind."""
    chance: float
    """How often a guess among the possible answers is right, in 0..1."""


def is_held_out(key: str) -> bool:
    """Say whether training never sees the item of this key; an item without a key is for all."""
    return key != "" and zlib.crc32(key.encode()) % 1000 < 1000 * HELD_OUT_SHARE


def draw_sum(rng: Random) -> Item:
    """Draw the sum of a number below 100 and a digit."""
    one, other = rng.randint(1, 89), rng.randint(1, 9)
    shown = (one, other) if rng.random() < 0.8 else (other, one)
    wording = rng.choice(("Combien font {} + {} ?", "Calcule {} + {}.", "{} + {} = ?"))
    return Item(
        kind="sum",
        key=f"{min(one, other)}+{max(one, other)}",
        question=wording.format(*shown),
        answer=f"{one + other}.",
        held_out="combination",
        chance=1 / 97,
    )


def draw_neighbour(rng: Random) -> Item:
    """Draw the number before or after another."""
    number, (word, step) = rng.randint(1, 250), rng.choice((("après", 1), ("avant", -1)))
    return Item(
        kind="neighbour",
        key=f"{word} {number}",
        question=f"Quel nombre vient {word} {number} ?",
        answer=f"{number + step}.",
        held_out="fact",
        chance=1 / 252,
    )


def draw_plural(rng: Random) -> Item:
    """Draw a noun with an adjective to put in the plural."""
    nouns = lexicon.ANIMALS + lexicon.THINGS + lexicon.FOODS
    noun = rng.choice(nouns)
    adjective = rng.choice(lexicon.COLOURS)
    return Item(
        kind="plural",
        key=f"{noun.singular} {adjective.masculine}",
        question=f"Mets au pluriel : {a(noun)} {agree(adjective, noun)}.",
        answer=f"Des {noun.plural} {agree_all(adjective, noun)}.",
        held_out="combination",
        chance=1 / (len(nouns) * len(lexicon.COLOURS)),
    )


def draw_feminine(rng: Random) -> Item:
    """Draw a person with a feeling to put in the feminine."""
    adjectives = lexicon.FEELINGS + lexicon.TRAITS
    (man, woman), adjective = rng.choice(lexicon.PEOPLE), rng.choice(adjectives)
    return Item(
        kind="feminine",
        key=f"{man.singular} {adjective.masculine}",
        question=f"Mets au féminin : un {man.singular} {adjective.masculine}.",
        answer=f"Une {woman.singular} {adjective.feminine}.",
        held_out="combination",
        chance=1 / (len(lexicon.PEOPLE) * len(adjectives)),
    )


def draw_conjugation(rng: Random) -> Item:
    """Draw a regular verb to conjugate."""
    verb, tense, person = rng.choice(lexicon.CONJUGATED), rng.choice(TENSES), rng.randrange(6)
    preposition = "à l'" if tense == "imparfait" else "au "
    return Item(
        kind="conjugation",
        key=f"{verb.infinitive} {tense} {person}",
        question=f"Conjugue {verb.infinitive} {preposition}{tense} avec {PERSONS[person]}.",
        answer=capitalize(conjugate(verb, tense, person)) + ".",
        held_out="combination",
        chance=1 / 18,
    )


def draw_opposite(rng: Random) -> Item:
    """Draw an adjective whose opposite is asked, in one of many wordings."""
    pair = rng.choice(lexicon.OPPOSITES)
    word, opposite = rng.sample(pair, 2)
    opener = rng.choice(OPENERS)
    core = f"quel est le contraire de {word.masculine}"
    return Item(
        kind="opposite",
        key=f"{word.masculine}|{opener}",
        question=capitalize(opener.format(core)),
        answer=capitalize(opposite.masculine) + ".",
        held_out="wording",
        chance=1 / (2 * len(lexicon.OPPOSITES)),
    )


def draw_colour_fact(rng: Random) -> Item:
    """Draw something whose colour everyone knows, in one of many wordings."""
    subject, gender, colour = rng.choice(lexicon.COLOUR_FACTS)
    opener = rng.choice(OPENERS)
    form, pronoun = (colour.feminine, "Elle") if gender == "f" else (colour.masculine, "Il")
    return Item(
        kind="known colour",
        key=f"{subject}|{opener}",
        question=capitalize(opener.format(f"de quelle couleur est {subject}")),
        answer=f"{pronoun} est {form}.",
        held_out="wording",
        chance=1 / len(lexicon.COLOURS),
    )


def draw_identity(rng: Random) -> Item:
    """Draw a question about the assistant itself."""
    cores, answer = rng.choice(IDENTITY)
    core, opener = rng.choice(cores.split("|")), rng.choice(DIRECT_OPENERS)
    return Item(
        kind="identity",
        key=f"{core}|{opener}",
        question=capitalize(opener.format(core)),
        answer=answer,
        held_out="wording",
        chance=1 / len(IDENTITY),
    )


def draw_greeting(rng: Random) -> Item:
    """Draw somebody who says hello, and is greeted by name."""
    hello, introduction = rng.choice(HELLOS), rng.choice(INTRODUCTIONS)
    name = rng.choice(lexicon.NAMES).text
    if rng.random() < PLAIN_HELLO_RATIO:
        plain = f"{hello} !"
        return Item(
            kind="greeting", key="", question=plain, answer=plain, held_out="wording", chance=1.0
        )
    return Item(
        kind="greeting",
        key=f"{hello} {introduction} {name}",
        question=f"{hello}, {introduction.format(name)}.",
        answer=f"{hello} {name} !",
        held_out="combination",
        chance=1 / (len(HELLOS) * len(lexicon.NAMES)),
    )


DRAWS: Mapping[str, tuple[int, Callable[[Random], Item]]] = {
    "sum": (5, draw_sum),
    "neighbour": (2, draw_neighbour),
    "plural": (1, draw_plural),
    "feminine": (1, draw_feminine),
    "conjugation": (4, draw_conjugation),
    "opposite": (1, draw_opposite),
    "known colour": (1, draw_colour_fact),
    "identity": (1, draw_identity),
    "greeting": (1, draw_greeting),
}
"""Kinds without a text: how often each is practised, and how it is drawn."""


def draw_text(rng: Random, *, num_facts: int) -> tuple[str, list[Item]]:
    """Draw a short text, with every question about it in random order."""
    facts = scene_facts(rng, num_facts)
    text = tell(facts, rng)
    rivals = Counter(
        kind for family, _ in facts for kind in {kind for kind, _, _ in TEXT_QUESTIONS[family]}
    )
    items = [
        Item(
            kind=kind,
            key=text,
            question=fill(question, dict(binding), rng),
            answer=fill(answer, dict(binding), rng),
            held_out="text",
            chance=1 / rivals[kind],
        )
        for family, binding in facts
        for kind, question, answer in TEXT_QUESTIONS[family]
    ]
    rng.shuffle(items)
    return text, items
