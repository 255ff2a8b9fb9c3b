"""The stories of the demo's world: which sentences may follow each other.

A plot is a list of steps, a step a choice of sentences; the words of a document are shared by its
sentences, so that a cat keeps its owner and its colour. A scene tells what several people do, then
returns to them: whoever reads on must look back. Nothing here knows about questions.
"""

import re
from collections.abc import Iterator
from random import Random

from dimgpt.data.demo_grammar import WORDS, Binding, fill

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
    "place": "{name} est {place at}.",
    "use": "{name} {use present} {thing a} {colour agree thing}.",
    "eat": "{name} {eat present} {food a}.",
    "count": "{name} a {number} {food plural}.",
    "care": "{name} {care present} {animal a}.",
}
FAMILIES = ("place", "place", "use", "use", "eat", "eat", "count", "care")
"""Each family as often as it takes to learn its questions."""
OPENING = "Ce matin, "
"""What a scene begins with, so that every name in it follows a space."""
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

GROUPS: Step = (
    "{name}, {name2}, {name3} et {name4} {act present_all}.",
    "{name}, {name2}, {name3} et {name4} {act2 present_all} {place at}.",
    "Puis {name}, {name2}, {name3} et {name4} {act3 present_all}.",
    "Hier, {name}, {name2}, {name3} et {name4} {act imperfect_all}.",
    "{name}, {name2}, {name3} et {name4} {move perfect name name2 name3 name4}.",
    "{name}, {name2}, {name3} et {name4} sont {feeling agree name name2 name3 name4}.",
)


def enumeration(sentence: str) -> str:
    """Turn a template about one person into one about three: `..., ... et ...`."""
    first, *others = (_numbered(sentence.removesuffix("."), number) for number in (1, 2, 3))
    second, third = (clause[0].lower() + clause[1:] for clause in others)
    return f"{first}, {second} et {third}."


def _numbered(clause: str, number: int) -> str:
    """Give every variable of a clause a number."""
    variables = re.compile(rf"\b({'|'.join(WORDS)})\b")
    return re.sub(r"\{.*?\}", lambda slot: variables.sub(rf"\g<1>{number}", slot[0]), clause)


_ROUNDS = {family: enumeration(sentence) for family, sentence in FACTS.items()}
_ROUND_RECALLS = {family: tuple(map(enumeration, step)) for family, step in RECALLS.items()}
_OPENINGS: Step = tuple(OPENING + sentence for sentence in FACTS.values())
TEMPLATES: tuple[str, ...] = tuple(
    dict.fromkeys(
        sentence
        for steps in (
            (*PETS_NOW, *PETS_THEN, GROUPS, _OPENINGS),
            (tuple(FACTS.values()), tuple(_ROUNDS.values())),
            (*RECALLS.values(), *_ROUND_RECALLS.values()),
        )
        for step in steps
        for sentence in step
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


def tell(facts: list[tuple[str, Binding]], rng: Random) -> str:
    """Write a sentence for each fact."""
    return OPENING + " ".join(fill(FACTS[family], dict(binding), rng) for family, binding in facts)


def _scene(rng: Random) -> str:
    """Tell facts, then return to each in other words, in any order."""
    facts = scene_facts(rng, rng.randint(2, 3))
    again = [
        fill(rng.choice(RECALLS[family]), dict(binding), rng)
        for family, binding in rng.sample(facts, len(facts))
    ]
    return " ".join([tell(facts, rng), *again])


def _round(rng: Random) -> str:
    """Tell what three people do in one breath, then again in other words and another order."""
    family, binding = rng.choice(FAMILIES), Binding()
    sentences = [fill(_ROUNDS[family], binding, rng)]
    for recall in rng.sample(_ROUND_RECALLS[family], rng.randint(1, 2)):
        order = dict(zip("123", rng.sample("123", 3), strict=True))
        moved = {name[:-1] + order[name[-1]]: word for name, word in binding.items()}
        sentences.append(fill(recall, moved, rng))
    return " ".join(sentences)


def _group(rng: Random) -> str:
    """Tell what four friends do, one thing after the other."""
    binding = Binding()
    return " ".join(fill(sentence, binding, rng) for sentence in rng.sample(GROUPS, 3))


def _plot(rng: Random) -> str:
    binding = Binding()
    steps = rng.choice((PETS_NOW, PETS_THEN))
    kept = [step for index, step in enumerate(steps) if index == 0 or rng.random() < 0.85]
    return " ".join(fill(rng.choice(step), binding, rng) for step in kept)


def write_story(rng: Random) -> str:
    """Write one document of any sort."""
    (write,) = rng.choices((_plot, _scene, _round, _group), (0.35, 0.25, 0.25, 0.15))
    return write(rng)


def write_stories(num_documents: int, rng: Random) -> Iterator[str]:
    """Write documents that are all different."""
    seen: set[str] = set()
    while len(seen) < num_documents:
        story = write_story(rng)
        if story not in seen:
            seen.add(story)
            yield story
