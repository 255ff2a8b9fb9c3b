"""Pairs of answers in the demo's world: the right one, and a wrong, a lazy or a rude one.

The wrong answer is similar to the right one: another digit, another form of the verb, another fact
of the same text. No held-out item ever occurs.
"""

import re
from collections.abc import Iterator
from random import Random

from dimgpt.data.conversation import Message, Preference
from dimgpt.demo.corpus import KINDS, QUESTION_KINDS, draw_question, draw_text, is_held_out
from dimgpt.demo.grammar import PERSONS, TENSES, capitalize, conjugate
from dimgpt.demo.lexicon import CONJUGATED

REJECTED = {"wrong": 6, "unknown": 1, "rude": 1}
"""What is wrong with an answer -> its weight."""
UNKNOWN = ("Je ne sais pas.", "Aucune idée.")
"""Answers of one who does not try."""
RUDE = ("Tais-toi.", "Laisse-moi tranquille.", "Quelle question stupide !")
"""Answers of one who is not polite."""


def preferences(num: int, *, seed: int) -> Iterator[Preference]:
    """Yield `num` questions with a better and a worse answer; no held-out item occurs in them."""
    rng = Random(f"preferences {seed}")
    for _ in range(num):
        (fault,) = rng.choices([*REJECTED], [*REJECTED.values()])
        question, right, wrong = _draw_pair(rng)
        rejected = {"wrong": wrong, "unknown": rng.choice(UNKNOWN), "rude": rng.choice(RUDE)}[fault]
        user = Message(role="user", text=question)
        better, worse = (Message(role="assistant", text=text) for text in (right, rejected))
        yield Preference(messages=(user, better), rejected=worse)


def _draw_pair(rng: Random) -> tuple[str, str, str]:
    (kind,) = rng.choices([*QUESTION_KINDS], [*QUESTION_KINDS.values()])
    while True:
        if kind in KINDS:
            key, question, right = KINDS[kind].draw(rng)
            wrong = _wrong_answer(kind, key, right, rng)
        else:
            key, items = draw_text(rng, num_facts=3)
            answers = [(asked, answer) for found, asked, answer, _ in items if found == kind]
            if len(answers) < 2:
                continue
            (question, right), (_, wrong) = answers[:2]
            question = f"{key} {question}"
        if wrong != right and not is_held_out(key):
            return question, right, wrong


def _wrong_answer(kind: str, key: str, right: str, rng: Random) -> str:
    """Draw an answer that is similar to the right one, or equal to it."""
    if kind == "conjugation":
        infinitive = key.partition(" ")[0]
        verb = next(verb for verb in CONJUGATED if verb.infinitive == infinitive)
        return capitalize(conjugate(verb, rng.choice(TENSES), rng.randrange(len(PERSONS)))) + "."
    if kind in ("sum", "neighbour"):
        return re.sub(r"\d+", lambda match: _near(int(match[0]), rng), right)
    return draw_question(kind, rng)[2]


def _near(number: int, rng: Random) -> str:
    return str(abs(number + rng.choice((-10, -2, -1, 1, 2, 10))))
