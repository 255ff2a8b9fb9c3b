"""The stories of the demo's world: which sentences may follow each other.

A plot is a list of steps, and a step is a choice of sentences. The sentences of a document share
its words, so that a cat keeps its owner and its colour. A scene tells what several people do, then
tells it again: a model must look back to predict the second telling.
"""

import re
from functools import lru_cache
from itertools import chain
from random import Random

from dimgpt.demo.grammar import Binding, fill, parse

Step = tuple[str, ...]

PETS_NOW: tuple[Step, ...] = (
    (
        "{name} a {animal a} {colour agree animal}.",
        "{name} vit avec {animal a} {colour agree animal}.",
        "Voici {name} avec {animal his} {colour agree animal}.",
    ),
    (
        "{animal the} {name of} s'appelle {pet}.",
        "{pet} {act present} beaucoup.",
        "{animal the} {name of} est {trait agree animal}.",
    ),
    (
        "Aujourd'hui, {weather now} et {name} est {place at}.",
        "{name} {move present} {place at} avec {animal his}.",
        "Quand {weather now}, {name} {act present} {place at}.",
    ),
    (
        "{name he} {care present} {animal his}.",
        "{animal the} {act present} {place at}.",
        "{animal the} {colour agree animal} {act not_present}.",
        "{animal the} {act not_present}.",
        "{name} et {animal his} {act present_all}.",
    ),
    (
        "{name} pense {name2 that} est {feeling agree name2}.",
        "{name he} aime {food the_all}, mais {name2} aime {food2 the_all}.",
        '"{act i_present} avec {animal the}", dit {name}.',
        "{animal2 the_all} sont {colour2 agree_all animal2}.",
    ),
    (
        "{name} est {feeling agree name} et {animal the} est {colour agree animal}.",
        "Le soir, {name} {act present} avec {pet}.",
        "{animal the} {name of} est {colour agree animal}.",
    ),
)

PETS_THEN: tuple[Step, ...] = (
    (
        "Hier, {name} {move perfect name} {place at}.",
        "Hier, {weather then} et {name} {act imperfect} {place at}.",
    ),
    (
        "{name he} {use perfect} {thing a} {colour agree thing}.",
        "{name} avait {thing a} {colour agree thing}.",
        "{name} cherchait {thing a} {colour agree thing}.",
    ),
    (
        "{name2} {move perfect name2} avec {animal a} {trait agree animal}.",
        "Un jour, {animal a} {trait agree animal} {move perfect animal}.",
        "{name he} parlait {animal of} {name2 of}.",
        "{name} et {name2} {move perfect name name2} {place at}.",
    ),
    (
        "{animal the} {act not_imperfect}, car {weather then}.",
        "{animal the} {act imperfect} et {name} {act2 imperfect}.",
        "{name} et {name2} {act imperfect_all}.",
        "Beaucoup {animal2 of_all} {act imperfect_all} {place at}.",
    ),
    (
        "{thing the} {name of} était {colour agree thing}.",
        "{thing the} {colour agree thing} était à {name}.",
        "{name he} a décidé {act2 to}.",
    ),
    (
        "{name} et {name2} étaient {feeling agree name name2}.",
        "{name} était {feeling agree name} et {name2} était {feeling2 agree name2}.",
        "Le soir, {name2} {eat perfect} {food a} et {name} {act perfect}.",
    ),
)

FACTS: dict[str, str] = {
    "place": "{name} {act present} {place at}.",
    "use": "{name} {use present} {thing a} {colour agree thing}.",
    "eat": "{name} {eat present} {food a}.",
    "count": "{name} {eat present} {number} {food plural}.",
    "care": "{name} {care present} {animal a}.",
}
FAMILIES = ("place", "place", "use", "use", "eat", "count", "count", "care")
"""Each family as often as it takes to learn its questions."""
SCENE_RATIO = 0.7
"""Share of scenes among the stories, in 0..1; the others are plots."""
OPENING = "Ce matin, "
"""What a scene begins with, so that every name in it follows a space."""
LATER = ("À midi, ", "Le soir, ")
"""What the second and third telling begin with."""
RECALLS: dict[str, Step] = {
    "place": ("On trouve {name} {place at}.", "{place at}, il y a {name}."),
    "use": (
        "{thing the} {name of} est {colour agree thing}.",
        "{thing the} {colour agree thing} est à {name}.",
        "C'est {name} qui {use present} {thing the} {colour agree thing}.",
    ),
    "eat": ("{food the} est pour {name}.", "Voici {name} avec {food the}."),
    "count": (
        "Les {number} {food plural} sont à {name}.",
        "Voici {name} avec {number} {food plural}.",
    ),
    "care": ("{animal the} est avec {name}.", "Voici {name} avec {animal the}."),
}

_SENTENCE_END = re.compile(r'(?<=[.!?]) +(?=[A-ZÀ-Ý"])')
TEMPLATES: tuple[str, ...] = tuple(
    dict.fromkeys(
        [
            *chain.from_iterable((*PETS_NOW, *PETS_THEN, *RECALLS.values())),
            *FACTS.values(),
            *(opening + fact for opening in (OPENING, *LATER) for fact in FACTS.values()),
        ]
    )
)


def scene_facts(rng: Random, num_facts: int) -> list[tuple[str, Binding]]:
    """Draw facts about different people and things, as (family of `FACTS`, its words).

    They are of two families at most, so that three facts hold two that are easily confused.
    """
    facts: list[tuple[str, Binding]] = []
    taken: set[object] = set()
    families = rng.choices(FAMILIES, k=2)
    while len(facts) < num_facts:
        family, binding = rng.choice(families), Binding()
        fill(FACTS[family], binding, rng)
        if taken.isdisjoint(binding.values()):
            taken.update(binding.values())
            facts.append((family, binding))
    return facts


def tell(facts: list[tuple[str, Binding]], rng: Random, *, opening: str = OPENING) -> str:
    """Write a sentence for each fact."""
    return opening + " ".join(fill(FACTS[family], dict(binding), rng) for family, binding in facts)


def _scene(rng: Random) -> str:
    """Tell facts, tell them again at another time of the day, then some in other words."""
    facts = scene_facts(rng, rng.randint(2, 3))
    later = [tell(rng.sample(facts, len(facts)), rng, opening=opening) for opening in LATER]
    family, binding = rng.choice(facts)
    ending = fill(rng.choice(RECALLS[family]), dict(binding), rng)
    return " ".join([tell(facts, rng), *later, ending])


def _plot(rng: Random) -> str:
    binding = Binding()
    steps = rng.choice((PETS_NOW, PETS_THEN))
    kept = [step for index, step in enumerate(steps) if index == 0 or rng.random() < 0.85]
    return " ".join(fill(rng.choice(step), binding, rng) for step in kept)


def write_story(rng: Random) -> str:
    """Write one document: a scene, or a plot with one or two heroes."""
    return _scene(rng) if rng.random() < SCENE_RATIO else _plot(rng)


def split_sentences(text: str) -> list[str]:
    """Cut a text after each full stop, question or exclamation mark that ends a sentence."""
    return [sentence for sentence in _SENTENCE_END.split(text.strip()) if sentence]


@lru_cache(maxsize=100_000)
def is_grammatical(sentence: str) -> bool:
    """Say whether a template of the stories can produce exactly this sentence."""
    return any(parse(template, sentence) is not None for template in TEMPLATES)
