"""Runs a request: generates its choices in parallel and yields their pieces."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import NamedTuple

from dimgpt.config import SamplingConfig
from dimgpt.generation.scores import Score
from dimgpt.serving.answers import Choice, Kind, Piece, ScoredToken
from dimgpt.serving.engine_thread import EngineThread
from dimgpt.text.tokenizer import Tokenizer


class Prompt(NamedTuple):
    """The beginning of a text."""

    ids: list[int]
    text: str
    """The text that `echo` shows."""
    num_hidden: int
    """Number of ids at the beginning that the text does not show."""


class Job(NamedTuple):
    """A request of either kind: each prompt is continued `n` times."""

    kind: Kind
    prompts: list[Prompt]
    config: SamplingConfig
    stops: tuple[int, ...]
    num_tokens: int
    """Largest number of new tokens; 0 generates nothing."""
    num_scored: int | None
    """Number of alternatives with log-probabilities; `None` gives no log-probabilities."""
    echo: bool
    """Begin each choice with its prompt."""
    n: int

    @property
    def num_choices(self) -> int:
        """Number of choices in the answer."""
        return len(self.prompts) * self.n

    def usage(self, num_shown: int) -> dict[str, int]:
        """Return OpenAI's `usage`, given the tokens of all choices, echoed ones included."""
        num_prompt = sum(len(prompt.ids) for prompt in self.prompts)
        num_hidden = sum(prompt.num_hidden for prompt in self.prompts)
        num_written = num_shown - (self.n * (num_prompt - num_hidden) if self.echo else 0)
        return {
            "prompt_tokens": num_prompt,
            "completion_tokens": num_written,
            "total_tokens": num_prompt + num_written,
        }


async def write_pieces(
    engine: EngineThread, tokenizer: Tokenizer, job: Job
) -> AsyncGenerator[Piece, None]:
    """Yield the pieces of all choices as they come; closing the iterator stops the generation.

    Raises:
        RuntimeError: As in `EngineThread.write`.
    """
    inbox: asyncio.Queue[Piece | Exception] = asyncio.Queue()
    choices = range(job.num_choices)
    tasks = [asyncio.create_task(_write(engine, tokenizer, job, at, inbox)) for at in choices]
    num_open = len(tasks)
    try:
        while num_open:
            piece = await inbox.get()
            if isinstance(piece, Exception):
                raise piece
            num_open -= piece.end is not None
            yield piece
    finally:
        for task in tasks:
            task.cancel()


async def _write(
    engine: EngineThread,
    tokenizer: Tokenizer,
    job: Job,
    index: int,
    inbox: asyncio.Queue[Piece | Exception],
) -> None:
    """Put the pieces of one choice into the inbox, or an error."""
    prompt, end = job.prompts[index // job.n], None if job.num_tokens else "length"
    try:
        if job.echo:
            scores: list[Score | None] = [None] * len(prompt.ids)
            if job.num_scored is not None:
                scores[1:] = await engine.score(prompt.ids, job.num_scored)
            tokens = list(map(ScoredToken, prompt.ids, scores))[prompt.num_hidden :]
            inbox.put_nowait(Piece(index, prompt.text, tokens, end))
        elif end:
            inbox.put_nowait(Piece(index, "", [], end))
        if end:
            return
        choice = Choice(index, tokenizer, job.config.stop_strings)
        steps = engine.write(
            prompt.ids, job.config, stops=job.stops, number=index, num_scored=job.num_scored
        )
        async with contextlib.aclosing(steps):
            async for step in steps:
                piece = choice.take(step)
                if piece is not None:
                    inbox.put_nowait(piece)
                    if piece.end is not None:
                        return
    except Exception as error:
        inbox.put_nowait(error)
