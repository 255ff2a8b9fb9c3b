"""The demo's corpus: a small French world, told, asked about, and checked, from a seed alone.

Stories teach the language, conversations teach to answer, held-out questions show what was
learned beyond memory, and `is_grammatical` reads generated sentences back with the grammar that
wrote the stories. Nothing is downloaded or stored.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from dimgpt.data.conversation import Conversation, Message
from dimgpt.demo.grammar import parse
from dimgpt.demo.questions import (
    DRAWS,
    TEXT_KINDS,
    HeldOut,
    Item,
    draw_text,
    is_held_out,
)
from dimgpt.demo.stories import TEMPLATES, write_story

QUESTION_KINDS: tuple[str, ...] = (*DRAWS, *TEXT_KINDS)
TEXT_RATIO = 0.55
"""Share of the training conversations that are about a text, in 0..1."""

_TRIES_PER_QUESTION = 200
_SENTENCE_END = re.compile(r'(?<=[.!?]) +(?=[A-ZÀ-Ý"])')


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A held-out question: what was said so far, and the one right answer."""

    kind: str
    conversation: Conversation
    """Ends with the user's message."""
    answer: str
    held_out: HeldOut
    """What training never saw."""
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
        yield _conversation(turns)


def held_out_questions(per_kind: int, *, seed: int) -> list[Question]:
    """Draw different questions of every kind, none of which training ever sees.

    Raises:
        ValueError: A kind has fewer held-out items.
    """
    rng = Random(f"held out {seed}")
    return [question for kind in QUESTION_KINDS for question in _held_out_kind(kind, per_kind, rng)]


def _held_out_kind(kind: str, count: int, rng: Random) -> list[Question]:
    """Draw different held-out questions of one kind."""
    drawn: dict[str, Question] = {}
    num_tries = 0
    while len(drawn) < count:
        text, item = _draw(kind, rng)
        if is_held_out(item.key):
            message = Message(role="user", text=f"{text} {item.question}".strip())
            question = Question(
                kind=item.kind,
                conversation=Conversation(messages=(message,)),
                answer=item.answer,
                held_out=item.held_out,
                chance=item.chance,
            )
            drawn.setdefault(item.key, question)
        num_tries += 1
        if num_tries > _TRIES_PER_QUESTION * count:
            raise ValueError(
                f"per_kind is {count}: {kind!r} has only {len(drawn)} held-out items; lower it"
            )
    return list(drawn.values())


def split_sentences(text: str) -> list[str]:
    """Cut a text after each full stop, question or exclamation mark that ends a sentence."""
    return [sentence for sentence in _SENTENCE_END.split(text.strip()) if sentence]


@lru_cache(maxsize=100_000)
def is_grammatical(sentence: str) -> bool:
    """Say whether the stories' grammar can produce exactly this sentence."""
    return any(parse(template, sentence) is not None for template in TEMPLATES)


def _small_turns(rng: Random) -> list[tuple[str, str]]:
    """Draw a few questions of any kind that needs no text."""
    turns = []
    shares, draws = zip(*DRAWS.values(), strict=True)
    for draw in rng.choices(draws, shares, k=rng.randint(1, 4)):
        item = draw(rng)
        while is_held_out(item.key):
            item = draw(rng)
        turns.append((item.question, item.answer))
    return turns


def _text_turns(rng: Random) -> list[tuple[str, str]]:
    """Draw a text, and questions about it; the first one comes with the text."""
    text, items = draw_text(rng, num_facts=rng.randint(2, 3))
    while is_held_out(text):
        text, items = draw_text(rng, num_facts=rng.randint(2, 3))
    turns = [(item.question, item.answer) for item in items[: rng.randint(2, 4)]]
    return [(f"{text} {turns[0][0]}", turns[0][1]), *turns[1:]]


def _draw(kind: str, rng: Random) -> tuple[str, Item]:
    """Draw any item of a kind, with the text that it is about, empty without one.

    A text holds at least two facts that could answer the question.
    """
    if kind in DRAWS:
        return "", DRAWS[kind][1](rng)
    while True:
        text, items = draw_text(rng, num_facts=3)
        for item in items:
            if item.kind == kind and item.chance < 1:
                return text, item


def _conversation(turns: list[tuple[str, str]]) -> Conversation:
    return Conversation(
        messages=tuple(
            Message(role=role, text=text)
            for question, answer in turns
            for role, text in (("user", question), ("assistant", answer))
        )
    )
