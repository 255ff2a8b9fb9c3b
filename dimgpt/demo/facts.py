"""The facts of the demo's world: their sentences, and the questions about them.

The scenes of `stories` tell facts, and so do the texts in the conversations of `corpus`.
"""

from collections.abc import Iterator
from random import Random

from dimgpt.demo.grammar import Binding, fill

Fact = tuple[str, Binding]
"""A family of `FACTS`, and its words."""

FACTS: dict[str, str] = {
    "place": "{name} {act present} {place at}.",
    "use": "{name} {use present} {thing a} {colour agree thing}.",
    "eat": "{name} {eat present} {food a}.",
    "count": "{name} {eat present} {number} {food plural}.",
    "care": "{name} {care present} {animal a}.",
}
FAMILIES = ("place", "place", "use", "use", "eat", "count", "count", "care")
"""Families, repeated according to how hard their questions are to learn."""
OPENING = "Ce matin, "
"""Beginning of a scene, so that every name in it follows a space."""
TEXT_QUESTIONS = (
    ("place", "where", "Où {act present} {name} ?"),
    ("use", "who does what", "Que {use present} {name} ?"),
    ("use", "colour told", "De quelle couleur est {thing the} {name of} ?"),
    ("eat", "who does what", "Que {eat present} {name} ?"),
    ("count", "how many", "Combien {food of_all} {eat present} {name} ?"),
    ("care", "who does what", "Que {care present} {name} ?"),
)
"""Family of a fact, kind of the question, and the question."""
COLOUR_ANSWER = "C'est {thing a} {colour agree thing}."
"""All other answers repeat a sentence of the text, which a small model can learn."""


def scene_facts(rng: Random, num_facts: int) -> list[Fact]:
    """Draw facts about different people and things.

    They are of at most two families, so that at least two of three facts are easily confused.
    """
    facts: list[Fact] = []
    taken: set[object] = set()
    families = rng.choices(FAMILIES, k=2)
    while len(facts) < num_facts:
        family, binding = rng.choice(families), Binding()
        fill(FACTS[family], binding, rng)
        if taken.isdisjoint(binding.values()):
            taken.update(binding.values())
            facts.append((family, binding))
    return facts


def tell(facts: list[Fact], rng: Random, *, opening: str = OPENING) -> str:
    """Write a sentence for each fact."""
    return opening + " ".join(fill(FACTS[family], dict(binding), rng) for family, binding in facts)


def ask(fact: Fact, rng: Random) -> Iterator[tuple[str, str, str]]:
    """Yield all questions about a fact, as (kind, question, answer)."""
    family, words = fact
    told = OPENING + fill(FACTS[family], dict(words), rng)
    for about, kind, question in TEXT_QUESTIONS:
        if about == family:
            answer = fill(COLOUR_ANSWER, dict(words), rng) if kind == "colour told" else told
            yield kind, fill(question, dict(words), rng), answer
