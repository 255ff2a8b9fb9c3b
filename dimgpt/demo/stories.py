"""The stories of the demo's world: which sentences may follow each other.

A story follows a plot of `plots`, or it is a scene. Its sentences share its words, so that a cat
keeps its owner and its colour. A scene tells what several people do, then tells it again: a model
must look back to predict the second telling.
"""

import re
from functools import lru_cache
from itertools import chain
from random import Random

from dimgpt.demo.facts import FACTS, OPENING, scene_facts, tell
from dimgpt.demo.grammar import Binding, fill, parse
from dimgpt.demo.plots import PETS, TALES, Step

STORY_SHARES = {"scene": 0.5, "tale": 0.4, "pets": 0.1}
"""Share of each kind of story; models learn to copy from the scenes."""
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
            *chain.from_iterable((*chain(*PETS, *TALES), *RECALLS.values())),
            *FACTS.values(),
            *(opening + fact for opening in (OPENING, *LATER) for fact in FACTS.values()),
        ]
    )
)


def write_scene(rng: Random) -> str:
    """Write a scene: facts, the same facts at another time of the day, then some in other words."""
    facts = scene_facts(rng, rng.randint(2, 3))
    later = [tell(rng.sample(facts, len(facts)), rng, opening=opening) for opening in LATER]
    family, binding = rng.choice(facts)
    ending = fill(rng.choice(RECALLS[family]), dict(binding), rng)
    return " ".join([tell(facts, rng), *later, ending])


def write_story(rng: Random) -> str:
    """Write a random scene, tale or text about pets, in the proportions of `STORY_SHARES`."""
    (kind,) = rng.choices(list(STORY_SHARES), list(STORY_SHARES.values()))
    if kind == "scene":
        return write_scene(rng)
    steps = rng.choice(TALES if kind == "tale" else PETS)
    if kind == "pets":
        steps = (steps[0], *(step for step in steps[1:] if rng.random() < 0.85))
    binding = Binding()
    return " ".join(fill(rng.choice(step), binding, rng) for step in steps)


def split_sentences(text: str) -> list[str]:
    """Cut a text after each full stop, question or exclamation mark that ends a sentence."""
    return [sentence for sentence in _SENTENCE_END.split(text.strip()) if sentence]


@lru_cache(maxsize=100_000)
def is_grammatical(sentence: str) -> bool:
    """Say whether a template of the stories can produce exactly this sentence."""
    return any(parse(template, sentence) is not None for template in TEMPLATES)
