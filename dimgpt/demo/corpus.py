"""The demo's corpus: stories, conversations and held-out questions, generated from a seed.

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
from dimgpt.demo.facts import TEXT_QUESTIONS, ask, scene_facts, tell
from dimgpt.demo.grammar import PERSONS, TENSES, a, agree, capitalize, conjugate
from dimgpt.demo.lexicon import WORDS
from dimgpt.demo.stories import write_story

QUESTION_KINDS: Mapping[str, float] = {
    "sum": 12,
    "neighbour": 3,
    "plural": 1,
    "feminine": 1,
    "conjugation": 4,
    "opposite": 1,
    "known colour": 1,
    "identity": 1,
    "greeting": 1,
    "where": 1,
    "who does what": 1,
    "colour told": 1,
    "how many": 1,
}
"""Kind of question -> its weight in training, a positive number.

The first nine need no text, the others ask about one; `TEXT_RATIO` divides training between the
two groups, and the weights divide each group. A kind without a line is neither trained nor scored.
"""
HELD_OUT_SHARE = 0.25
"""Share of each kind's items that training never sees, in 0..1."""
TEXT_RATIO = 0.45
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


class Kind(NamedTuple):
    """A kind of question that needs no text."""

    draw: Callable[[Random], Item]
    held_out: str
    """As `Question.held_out`."""
    num_answers: int
    """Possible answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A held-out question: the conversation so far, and the one right answer."""

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
    """Draw different questions of every kind that never occur in the training.

    Raises:
        ValueError: A kind has fewer held-out items.
    """
    rng = Random(f"held out {seed}")
    return [question for kind in QUESTION_KINDS for question in _held_out_kind(kind, per_kind, rng)]


def is_held_out(key: str) -> bool:
    """Return whether the item with this key is never trained; an empty key is not held out."""
    return key != "" and zlib.crc32(key.encode()) % 1000 < 1000 * HELD_OUT_SHARE


def _held_out_kind(kind: str, count: int, rng: Random) -> list[Question]:
    drawn: dict[str, Question] = {}
    for _ in range(_TRIES_PER_QUESTION * count):
        if len(drawn) == count:
            break
        key, text, answer, chance = draw_question(kind, rng)
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


def draw_question(kind: str, rng: Random) -> tuple[str, str, str, float]:
    """Draw any item of a kind: key, question, answer, and the probability of a right guess.

    A text contains at least two facts that could answer the question.
    """
    if kind in KINDS:
        return *KINDS[kind].draw(rng), 1 / KINDS[kind].num_answers
    if kind not in (known := [kind for _, kind, _ in TEXT_QUESTIONS]):
        raise ValueError(f"QUESTION_KINDS has {kind!r}: choose of {', '.join((*KINDS, *known))}")
    while True:
        text, items = draw_text(rng, num_facts=3)
        for found, question, answer, num_answers in items:
            if found == kind and num_answers > 1:
                return text, f"{text} {question}", answer, 1 / num_answers


def _small_turns(rng: Random) -> list[Turn]:
    """Draw a few questions of any kind that needs no text."""
    turns = []
    kinds = [kind for kind in QUESTION_KINDS if kind in KINDS]
    for kind in rng.choices(kinds, [QUESTION_KINDS[kind] for kind in kinds], k=rng.randint(1, 4)):
        key, question, answer = KINDS[kind].draw(rng)
        while is_held_out(key):
            key, question, answer = KINDS[kind].draw(rng)
        turns.append((question, answer))
    return turns


def _text_turns(rng: Random) -> list[Turn]:
    """Draw a text, and questions about it; the first one comes with the text."""
    text, items = draw_text(rng, num_facts=rng.randint(2, 3))
    while is_held_out(text) or not items:
        text, items = draw_text(rng, num_facts=rng.randint(2, 3))
    turns = [(question, answer) for _, question, answer, _ in items[: rng.randint(2, 4)]]
    return [(f"{text} {turns[0][0]}", turns[0][1]), *turns[1:]]


def draw_text(rng: Random, *, num_facts: int) -> tuple[str, list[tuple[str, str, str, int]]]:
    """Draw a short text, and every question about it in a random weighted order.

    A question is its kind, its words, its answer, and how many answers it could have.
    """
    facts = scene_facts(rng, num_facts)
    text = tell(facts, rng)
    asked = [turn for fact in facts for turn in ask(fact, rng) if turn[0] in QUESTION_KINDS]
    rivals = Counter(kind for kind, *_ in asked)
    asked.sort(key=lambda turn: rng.expovariate(QUESTION_KINDS[turn[0]]))  # weighted order
    return text, [(*turn, rivals[turn[0]]) for turn in asked]


def _sum(rng: Random) -> Item:
    one, other = rng.randint(1, 89), rng.randint(1, 9)
    shown = (one, other) if rng.random() < 0.8 else (other, one)
    wording = rng.choice(("Combien font {} + {} ?", "Calcule {} + {}.", "{} + {} = ?"))
    key = f"{min(one, other)}+{max(one, other)}"
    return key, wording.format(*shown), f"{one + other}."


def _neighbour(rng: Random) -> Item:
    number, (word, step) = rng.randint(1, 250), rng.choice((("après", 1), ("avant", -1)))
    return f"{word} {number}", f"Quel nombre vient {word} {number} ?", f"{number + step}."


def _plural(rng: Random) -> Item:
    noun, colour = rng.choice(_NOUNS), rng.choice(WORDS["colour"])
    return (
        f"{noun.singular} {colour.masculine}",
        f"Mets au pluriel : {a(noun)} {agree(colour, noun)}.",
        f"Des {noun.plural} {agree(colour, noun, noun)}.",
    )


def _feminine(rng: Random) -> Item:
    person, adjective = rng.choice(lexicon.PEOPLE), rng.choice(_ADJECTIVES)
    key = f"{person.masculine} {adjective.masculine}"
    return key, f"Mets au féminin : un {key}.", f"Une {person.feminine} {adjective.feminine}."


def _conjugation(rng: Random) -> Item:
    verb, tense, person = rng.choice(lexicon.CONJUGATED), rng.choice(TENSES), rng.randrange(6)
    preposition = "à l'" if tense == "imparfait" else "au "
    return (
        f"{verb.infinitive} {tense} {person}",
        f"Conjugue {verb.infinitive} {preposition}{tense} avec {PERSONS[person]}.",
        capitalize(conjugate(verb, tense, person)) + ".",
    )


def _opposite(rng: Random) -> Item:
    word, opposite = rng.sample(rng.choice(lexicon.OPPOSITES), 2)
    opener = rng.choice(lexicon.OPENERS)
    question = capitalize(opener.format(f"quel est le contraire de {word}"))
    return f"{word}|{opener}", question, capitalize(opposite) + "."


def _known_colour(rng: Random) -> Item:
    subject, answer = rng.choice(lexicon.COLOUR_FACTS)
    opener = rng.choice(lexicon.OPENERS)
    question = capitalize(opener.format(f"de quelle couleur est {subject}"))
    return f"{subject}|{opener}", question, f"{answer}."


def _identity(rng: Random) -> Item:
    cores, answer = rng.choice(lexicon.IDENTITY)
    core, opener = rng.choice(cores.split("|")), rng.choice(lexicon.DIRECT_OPENERS)
    return f"{core}|{opener}", capitalize(opener.format(core)), answer


def _greeting(rng: Random) -> Item:
    hello, introduction = rng.choice(lexicon.HELLOS), rng.choice(lexicon.INTRODUCTIONS)
    name = rng.choice(WORDS["name"]).text
    if rng.random() < PLAIN_HELLO_RATIO:
        return "", f"{hello} !", f"{hello} !"
    question = f"{hello}, {introduction.format(name)}."
    return f"{hello} {introduction} {name}", question, f"{hello} {name} !"


KINDS: Mapping[str, Kind] = {
    "sum": Kind(_sum, "combination", 97),
    "neighbour": Kind(_neighbour, "fact", 252),
    "plural": Kind(_plural, "combination", len(_NOUNS) * len(WORDS["colour"])),
    "feminine": Kind(_feminine, "combination", len(lexicon.PEOPLE) * len(_ADJECTIVES)),
    "conjugation": Kind(_conjugation, "combination", len(PERSONS) * len(TENSES)),
    "opposite": Kind(_opposite, "wording", 2 * len(lexicon.OPPOSITES)),
    "known colour": Kind(_known_colour, "wording", len(WORDS["colour"])),
    "identity": Kind(_identity, "wording", len(lexicon.IDENTITY)),
    "greeting": Kind(_greeting, "combination", len(lexicon.HELLOS) * len(WORDS["name"])),
}
