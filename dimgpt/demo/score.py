"""Scores of a model of the demo's world: right answers by kind, and grammatical sentences.

It asks only what training never saw. An answer counts when it is the expected one, character for
character, edge spaces aside.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dimgpt.config import SamplingConfig
from dimgpt.data.conversations.conversation import Conversation, encode_prompt
from dimgpt.demo.corpus import Question, held_out_questions, is_grammatical, split_sentences
from dimgpt.generation.generator import TextGenerator
from dimgpt.model.transformer import Transformer
from dimgpt.text.tokenizer import Tokenizer

Answer = Callable[[Conversation], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class KindScore:
    """Exact matches among the held-out questions of one kind."""

    kind: str
    held_out: str
    """What training never saw: a fact, a combination, a wording or a text."""
    num_questions: int
    num_right: int
    chance: float
    """Share that a guess among the possible answers gets right, in 0..1."""

    @property
    def accuracy(self) -> float:
        """Share of right answers, in 0..1."""
        return self.num_right / self.num_questions


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """A question that was answered otherwise than expected."""

    question: Question
    answered: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoScore:
    """What a model of the demo's world can do."""

    kinds: tuple[KindScore, ...]
    mistakes: tuple[Mistake, ...]
    num_sentences: int
    """Finished sentences in the generated stories."""
    num_grammatical: int
    """Those that the grammar of the stories can produce."""

    @property
    def macro_average(self) -> float:
        """Mean accuracy of the kinds, each counting the same, in 0..1."""
        return sum(kind.accuracy for kind in self.kinds) / len(self.kinds)

    @property
    def grammatical_ratio(self) -> float:
        """Share of grammatical sentences, in 0..1; 0 when nothing was finished."""
        return self.num_grammatical / max(1, self.num_sentences)

    @property
    def headline(self) -> str:
        """The two figures in a sentence."""
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
    questions: Sequence[Question], answer: Answer, *, generated_stories: Iterable[str]
) -> DemoScore:
    """Ask every question once, and read every generated story.

    Args:
        questions: Held-out questions.
        answer: Gives the assistant's next message in a conversation.
        generated_stories: Texts that the model wrote; an unfinished last sentence is not counted.

    Raises:
        ValueError: There is no question.
    """
    if not questions:
        raise ValueError("questions is empty: a score needs at least one; draw held-out questions")
    answers = [answer(question.conversation).strip() for question in questions]
    sentences = [sentence for text in generated_stories for sentence in finished_sentences(text)]
    return DemoScore(
        kinds=score_kinds(questions, answers),
        mistakes=tuple(
            Mistake(question=question, answered=answered)
            for question, answered in zip(questions, answers, strict=True)
            if answered != question.answer
        ),
        num_sentences=len(sentences),
        num_grammatical=sum(map(is_grammatical, sentences)),
    )


def score_kinds(questions: Sequence[Question], answers: Sequence[str]) -> tuple[KindScore, ...]:
    """Count the exact matches of each kind, kinds in the order in which they first occur."""
    pairs: dict[str, list[tuple[Question, str]]] = {}
    for question, answered in zip(questions, answers, strict=True):
        pairs.setdefault(question.kind, []).append((question, answered))
    return tuple(
        KindScore(
            kind=kind,
            held_out=group[0][0].held_out,
            num_questions=len(group),
            num_right=sum(answered == question.answer for question, answered in group),
            chance=sum(question.chance for question, _ in group) / len(group),
        )
        for kind, group in pairs.items()
    )


def finished_sentences(text: str) -> list[str]:
    """Return the sentences of a text, but for a last one that was cut short."""
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
    """Let the pretrained model tell stories, and ask the chat model what it never saw.

    Args:
        model: Pretrained on the stories.
        chat_model: Fine-tuned on the conversations; it answers greedily.
        tokenizer: Of both.
        sampling: How the stories are drawn.
        num_stories: Stories to read.
        questions_per_kind: Questions of each kind.
    """
    questions = held_out_questions(questions_per_kind, seed=0)
    answers = _answer(chat_model, tokenizer, questions)
    start = tokenizer.encode_beginning("")
    drawn = dataclasses.replace(sampling, seed=0)
    writer = TextGenerator(model, tokenizer)
    stories = writer.complete_batch([start] * num_stories, drawn)
    by_conversation = {id(question.conversation): answer for question, answer in answers}
    return score_demo(
        questions,
        lambda conversation: by_conversation[id(conversation)],
        generated_stories=[tokenizer.decode(story) for story in stories],
    )


def _answer(
    model: Transformer, tokenizer: Tokenizer, questions: Sequence[Question]
) -> list[tuple[Question, str]]:
    greedy = SamplingConfig(temperature=0.0, max_new_tokens=24)
    prompts = [encode_prompt(question.conversation.messages, tokenizer) for question in questions]
    answers = TextGenerator(model, tokenizer).complete_batch(prompts, greedy, is_chat=True)
    texts = [tokenizer.decode(answer) for answer in answers]
    return list(zip(questions, texts, strict=True))
