"""The demo's corpus: stories, conversations and held-out questions, from a seed alone.

Each kind of question draws items from a finite or endless set. A hash of an item's key decides
whether the item is held out, so training and scoring never share one. Nothing is downloaded.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from dimgpt.data.conversation import Conversation, Message
from dimgpt.demo import lexicon
from dimgpt.demo.grammar import PERSONS, TENSES, a, agree, capitalize, conjugate, fill
from dimgpt.demo.lexicon import WORDS
from dimgpt.demo.stories import FACTS, OPENING, scene_facts, tell, write_story

HELD_OUT_SHARE = 0.25
"""Share of each kind's items that training never sees, in 0..1."""
TEXT_RATIO = 0.55
"""Share of the training conversations that are about a text, in 0..1."""
PLAIN_HELLO_RATIO = 0.2
"""Share of greetings without a name, which are too few to be held out, in 0..1."""
_TRIES_PER_QUESTION = 200
_NOUNS = (*WORDS["animal"], *WORDS["thing"], *WORDS["food"])
_ADJECTIVES = (*WORDS["feeling"], *WORDS["trait"])

Turn = tuple[str, str]
"""A question and its one right answer."""
Item = tuple[str, str, str]
"""A key, a question and its one right answer; two wordings of one sum share a key."""

TEXT_QUESTIONS = (
    ("place", "where", "Où {act present} {name} ?"),
    ("use", "who does what", "Que {use present} {name} ?"),
    ("use", "colour told", "De quelle couleur est {thing the} {name of} ?"),
    ("eat", "who does what", "Que {eat present} {name} ?"),
    ("count", "how many", "Combien {food of_all} {eat present} {name} ?"),
    ("care", "who does what", "Que {care present} {name} ?"),
)
"""Family of a fact, kind of the question, and the question."""
TEXT_KINDS = ("where", "who does what", "colour told", "how many")
COLOUR_ANSWER = "C'est {thing a} {colour agree thing}."
"""Other answers repeat the text's own words: so small a model can learn to find a fact again."""


class Kind(NamedTuple):
    """A kind of question that needs no text."""

    draw: Callable[[Random], Item]
    weight: int
    """How often it occurs in training, relative to the others."""
    held_out: str
    """As `Question.held_out`."""
    num_answers: int
    """Possible answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A held-out question: what was said so far, and the one right answer."""

    kind: str
    conversation: Conversation
    """Ends with the user's message."""
    answer: str
    held_out: str
    """What training never saw: a fact, a combination, a wording or a text."""
    chance: float
    """How often a guess among the possible answers is right, in 0..1."""


def stories(num_documents: int, *, seed: int) -> Iterator[str]:
    """Write different short stories, one line of text each."""
    rng, seen = Random(f"stories {seed}"), set[str]()
    while len(seen) < num_documents:
        story = write_story(rng)
        if story not in seen:
            seen.add(story)
            yield story


def conversations(num: int, *, seed: int) -> Iterator[Conversation]:
    """Write training conversations; no held-out item ever occurs in them."""
    rng = Random(f"conversations {seed}")
    for _ in range(num):
        turns = _text_turns(rng) if rng.random() < TEXT_RATIO else _small_turns(rng)
        roles = ("user", "assistant")
        yield Conversation(
            messages=tuple(
                Message(role=role, text=text)
                for turn in turns
                for role, text in zip(roles, turn, strict=True)
            )
        )


def held_out_questions(per_kind: int, *, seed: int) -> list[Question]:
    """Draw different questions of every kind, none of which training ever sees.

    Raises:
        ValueError: A kind has fewer held-out items.
    """
    rng = Random(f"held out {seed}")
    return [question for kind in QUESTION_KINDS for question in _held_out_kind(kind, per_kind, rng)]


def is_held_out(key: str) -> bool:
    """Say whether training never sees the item of this key; an item without a key is for all."""
    return key != "" and zlib.crc32(key.encode()) % 1000 < 1000 * HELD_OUT_SHARE


def _held_out_kind(kind: str, count: int, rng: Random) -> list[Question]:
    """Draw different held-out questions of one kind."""
    drawn: dict[str, Question] = {}
    for _ in range(_TRIES_PER_QUESTION * count):
        if len(drawn) == count:
            break
        key, text, answer, chance = _draw(kind, rng)
        if is_held_out(key):
            question = Question(
                kind=kind,
                conversation=Conversation(messages=(Message(role="user", text=text),)),
                answer=answer,
                held_out=KINDS[kind].held_out if kind in KINDS else "text",
                chance=chance,
            )
            drawn.setdefault(key, question)
    if len(drawn) < count:
        raise ValueError(
            f"per_kind is {count}: {kind!r} has only {len(drawn)} held-out items; lower it"
        )
    return list(drawn.values())


def _draw(kind: str, rng: Random) -> tuple[str, str, str, float]:
    """Draw any item of a kind: its key, question, answer, and how often a guess is right.

    A text holds at least two facts that could answer the question.
    """
    if kind in KINDS:
        return *KINDS[kind].draw(rng), 1 / KINDS[kind].num_answers
    while True:
        text, items = _draw_text(rng, num_facts=3)
        for found, question, answer, num_answers in items:
            if found == kind and num_answers > 1:
                return text, f"{text} {question}", answer, 1 / num_answers


def _small_turns(rng: Random) -> list[Turn]:
    """Draw a few questions of any kind that needs no text."""
    turns = []
    weights = [kind.weight for kind in KINDS.values()]
    for kind in rng.choices(list(KINDS.values()), weights, k=rng.randint(1, 4)):
        key, question, answer = kind.draw(rng)
        while is_held_out(key):
            key, question, answer = kind.draw(rng)
        turns.append((question, answer))
    return turns


def _text_turns(rng: Random) -> list[Turn]:
    """Draw a text, and questions about it; the first one comes with the text."""
    text, items = _draw_text(rng, num_facts=rng.randint(2, 3))
    while is_held_out(text):
        text, items = _draw_text(rng, num_facts=rng.randint(2, 3))
    turns = [(question, answer) for _, question, answer, _ in items[: rng.randint(2, 4)]]
    return [(f"{text} {turns[0][0]}", turns[0][1]), *turns[1:]]


def _draw_text(rng: Random, *, num_facts: int) -> tuple[str, list[tuple[str, str, str, int]]]:
    """Draw a short text, with every question about it in random order.

    A question is its kind, its words, its answer, and how many facts could answer it.
    """
    facts = scene_facts(rng, num_facts)
    text = tell(facts, rng)
    asked = [
        (kind, question, COLOUR_ANSWER if kind == "colour told" else OPENING + FACTS[family], words)
        for family, words in facts
        for about, kind, question in TEXT_QUESTIONS
        if about == family
    ]
    rivals = Counter(kind for kind, *_ in asked)
    items = [
        (kind, fill(question, dict(words), rng), fill(answer, dict(words), rng), rivals[kind])
        for kind, question, answer, words in asked
    ]
    rng.shuffle(items)
    return text, items


def _sum(rng: Random) -> Item:
    """Draw the sum of a number below 100 and a digit."""
    one, other = rng.randint(1, 89), rng.randint(1, 9)
    shown = (one, other) if rng.random() < 0.8 else (other, one)
    wording = rng.choice(("Combien font {} + {} ?", "Calcule {} + {}.", "{} + {} = ?"))
    key = f"{min(one, other)}+{max(one, other)}"
    return key, wording.format(*shown), f"{one + other}."


def _neighbour(rng: Random) -> Item:
    """Draw the number before or after another."""
    number, (word, step) = rng.randint(1, 250), rng.choice((("après", 1), ("avant", -1)))
    return f"{word} {number}", f"Quel nombre vient {word} {number} ?", f"{number + step}."


def _plural(rng: Random) -> Item:
    """Draw a noun with an adjective to put in the plural."""
    noun, colour = rng.choice(_NOUNS), rng.choice(WORDS["colour"])
    return (
        f"{noun.singular} {colour.masculine}",
        f"Mets au pluriel : {a(noun)} {agree(colour, noun)}.",
        f"Des {noun.plural} {agree(colour, noun, noun)}.",
    )


def _feminine(rng: Random) -> Item:
    """Draw a person with a feeling to put in the feminine."""
    person, adjective = rng.choice(lexicon.PEOPLE), rng.choice(_ADJECTIVES)
    key = f"{person.masculine} {adjective.masculine}"
    return key, f"Mets au féminin : un {key}.", f"Une {person.feminine} {adjective.feminine}."


def _conjugation(rng: Random) -> Item:
    """Draw a regular verb to conjugate."""
    verb, tense, person = rng.choice(lexicon.CONJUGATED), rng.choice(TENSES), rng.randrange(6)
    preposition = "à l'" if tense == "imparfait" else "au "
    return (
        f"{verb.infinitive} {tense} {person}",
        f"Conjugue {verb.infinitive} {preposition}{tense} avec {PERSONS[person]}.",
        capitalize(conjugate(verb, tense, person)) + ".",
    )


def _opposite(rng: Random) -> Item:
    """Draw an adjective whose opposite is asked, in one of many wordings."""
    word, opposite = rng.sample(rng.choice(lexicon.OPPOSITES), 2)
    opener = rng.choice(lexicon.OPENERS)
    question = capitalize(opener.format(f"quel est le contraire de {word}"))
    return f"{word}|{opener}", question, capitalize(opposite) + "."


def _known_colour(rng: Random) -> Item:
    """Draw something whose colour everyone knows, in one of many wordings."""
    subject, answer = rng.choice(lexicon.COLOUR_FACTS)
    opener = rng.choice(lexicon.OPENERS)
    question = capitalize(opener.format(f"de quelle couleur est {subject}"))
    return f"{subject}|{opener}", question, f"{answer}."


def _identity(rng: Random) -> Item:
    """Draw a question about the assistant itself."""
    cores, answer = rng.choice(lexicon.IDENTITY)
    core, opener = rng.choice(cores.split("|")), rng.choice(lexicon.DIRECT_OPENERS)
    return f"{core}|{opener}", capitalize(opener.format(core)), answer


def _greeting(rng: Random) -> Item:
    """Draw somebody who says hello, and is greeted by name."""
    hello, introduction = rng.choice(lexicon.HELLOS), rng.choice(lexicon.INTRODUCTIONS)
    name = rng.choice(WORDS["name"]).text
    if rng.random() < PLAIN_HELLO_RATIO:
        return "", f"{hello} !", f"{hello} !"
    question = f"{hello}, {introduction.format(name)}."
    return f"{hello} {introduction} {name}", question, f"{hello} {name} !"


KINDS: Mapping[str, Kind] = {
    "sum": Kind(_sum, 5, "combination", 97),
    "neighbour": Kind(_neighbour, 2, "fact", 252),
    "plural": Kind(_plural, 1, "combination", len(_NOUNS) * len(WORDS["colour"])),
    "feminine": Kind(_feminine, 1, "combination", len(lexicon.PEOPLE) * len(_ADJECTIVES)),
    "conjugation": Kind(_conjugation, 4, "combination", len(PERSONS) * len(TENSES)),
    "opposite": Kind(_opposite, 1, "wording", 2 * len(lexicon.OPPOSITES)),
    "known colour": Kind(_known_colour, 1, "wording", len(WORDS["colour"])),
    "identity": Kind(_identity, 1, "wording", len(lexicon.IDENTITY)),
    "greeting": Kind(_greeting, 1, "combination", len(lexicon.HELLOS) * len(WORDS["name"])),
}
QUESTION_KINDS: tuple[str, ...] = (*KINDS, *TEXT_KINDS)
