"""Scores of a model of the demo's world: right answers by kind, and grammatical sentences.

All questions are held out. An answer is right if it equals the expected one, except for spaces at
its ends.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from dimgpt.config import SamplingConfig
from dimgpt.data.conversation import encode_prompt
from dimgpt.demo.corpus import Question, held_out_questions
from dimgpt.demo.stories import is_grammatical, split_sentences
from dimgpt.generation.generator import TextGenerator
from dimgpt.model.transformer import Transformer
from dimgpt.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class KindScore:
    """Exact matches among the held-out questions of one kind."""

    kind: str
    held_out: str
    """What training never saw: a fact, a combination, a wording or a text."""
    num_questions: int
    accuracy: float
    """Share of right answers, in 0..1."""
    chance: float
    """Share that a guess among the possible answers gets right, in 0..1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoScore:
    """The scores of a model of the demo's world."""

    kinds: tuple[KindScore, ...]
    mistakes: tuple[tuple[Question, str], ...]
    """Questions with their wrong answers."""
    num_sentences: int
    """Finished sentences in the generated stories."""
    num_grammatical: int
    """Those that the grammar of the stories can produce."""

    @property
    def macro_average(self) -> float:
        """Mean accuracy of the kinds, each counting the same, in 0..1."""
        return fmean(kind.accuracy for kind in self.kinds)

    @property
    def grammatical_ratio(self) -> float:
        """Share of grammatical sentences, in 0..1; 0 when nothing was finished."""
        return self.num_grammatical / max(1, self.num_sentences)

    @property
    def headline(self) -> str:
        """A text with exact match and the share of grammatical sentences."""
        return (
            f"Exact match on held-out questions: {self.macro_average:.1%} on average over kinds. "
            f"Grammatical sentences: {self.grammatical_ratio:.1%} of {self.num_sentences:,}."
        )

    def rows(self) -> list[dict[str, str | int]]:
        """Return one row a kind for a table, the easiest kind first."""
        return [
            {
                "kind": kind.kind,
                "held out": kind.held_out,
                "questions": kind.num_questions,
                "right": f"{kind.accuracy:.0%}",
                "chance": f"{kind.chance:.1%}",
            }
            for kind in sorted(self.kinds, key=lambda kind: -kind.accuracy)
        ]


def score_demo(
    questions: Sequence[Question], answers: Iterable[str], *, generated_stories: Iterable[str]
) -> DemoScore:
    """Compare every answer with the expected one, and check the grammar of every story.

    Args:
        questions: Held-out questions.
        answers: The model's answer to each, in their order.
        generated_stories: Texts of the model; an unfinished last sentence is not counted.

    Raises:
        ValueError: There is no question.
    """
    if not questions:
        raise ValueError("questions is empty: a score needs at least one; draw held-out questions")
    kinds: dict[str, list[Question]] = {}
    mistakes = []
    for question, answer in zip(questions, answers, strict=True):
        kinds.setdefault(question.kind, []).append(question)
        if answer.strip() != question.answer:
            mistakes.append((question, answer.strip()))
    num_wrong = Counter(question.kind for question, _ in mistakes)
    sentences = [sentence for text in generated_stories for sentence in finished_sentences(text)]
    return DemoScore(
        kinds=tuple(
            KindScore(
                kind=kind,
                held_out=group[0].held_out,
                num_questions=len(group),
                accuracy=1 - num_wrong[kind] / len(group),
                chance=fmean(question.chance for question in group),
            )
            for kind, group in kinds.items()
        ),
        mistakes=tuple(mistakes),
        num_sentences=len(sentences),
        num_grammatical=sum(map(is_grammatical, sentences)),
    )


def finished_sentences(text: str) -> list[str]:
    """Return the sentences of a text without an unfinished last one."""
    sentences = split_sentences(text)
    return sentences if text.rstrip().endswith((".", "!", "?")) else sentences[:-1]


def score_models(
    model: Transformer,
    chat_model: Transformer,
    tokenizer: Tokenizer,
    *,
    sampling: SamplingConfig,
    num_stories: int = 40,
    questions_per_kind: int = 60,
) -> DemoScore:
    """Score the stories of the pretrained model and the answers of the chat model.

    Args:
        model: Pretrained on the stories.
        chat_model: Fine-tuned on the conversations; it answers greedily.
        tokenizer: Of both.
        sampling: Settings for the stories; the seed is 0.
        num_stories: Number of stories.
        questions_per_kind: As `held_out_questions`.
    """
    questions = held_out_questions(questions_per_kind, seed=0)
    prompts = [encode_prompt(question.conversation.messages, tokenizer) for question in questions]
    greedy = SamplingConfig(temperature=0.0, max_new_tokens=24)
    answers = TextGenerator(chat_model, tokenizer).complete_batch(prompts, greedy, is_chat=True)
    beginnings = [tokenizer.encode_beginning("")] * num_stories
    drawn = dataclasses.replace(sampling, seed=0)
    stories = TextGenerator(model, tokenizer).complete_batch(beginnings, drawn)
    return score_demo(
        questions,
        map(tokenizer.decode, answers),
        generated_stories=map(tokenizer.decode, stories),
    )
