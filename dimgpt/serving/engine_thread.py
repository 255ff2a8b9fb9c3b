"""Runs an engine in a thread of its own, and hands its tokens to an event loop."""

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, NamedTuple

from dimgpt.config import SamplingConfig
from dimgpt.generation.continuation import Continuation, End
from dimgpt.generation.engine import Engine
from dimgpt.generation.scores import Score, score_tokens
from dimgpt.model.cache import KVCache
from dimgpt.model.transformer import Transformer
from dimgpt.text.special_tokens import SpecialTokens


class Step(NamedTuple):
    """What one step of the engine did to a text."""

    id: int | None
    """The token that was written; `None` if the model ended the text."""
    score: Score | None
    """Of that token, if scores were asked for."""
    end: End | None
    """Why the text ended, if it did."""


class BusyError(RuntimeError):
    """Too many texts wait already."""


class EngineThread:
    """Texts of many callers, written by one engine.

    Only the thread touches the engine: callers give it orders, which it carries out between steps.

    Args:
        model: In evaluation mode.
        special_tokens: As in `Engine`.
        cache: One row for each text that is written at the same time.
        max_waiting: Texts that may wait for a row; one more is refused.
    """

    def __init__(
        self,
        model: Transformer,
        special_tokens: SpecialTokens,
        *,
        cache: KVCache,
        max_waiting: int = 256,
    ) -> None:
        self._model = model
        self._engine = Engine(model, special_tokens, cache=cache)
        self._max_texts = len(cache.lengths) + max_waiting
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._receivers: dict[Continuation, Callable[[Step | Exception], None]] = {}
        self._num_texts = 0  # of the event loop's side
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread after the step that it is in."""
        self._orders.put(None)
        self._thread.join()

    def require_room(self, num_texts: int) -> None:
        """Refuse texts for which there is no place to wait.

        Raises:
            BusyError: Too many texts wait.
        """
        if self._num_texts + num_texts > self._max_texts:
            raise BusyError(
                f"{self._num_texts} texts are being written or wait, at most {self._max_texts} "
                "may: try again later"
            )

    async def write(
        self,
        prompt_ids: Sequence[int],
        config: SamplingConfig,
        *,
        stops: Sequence[int] = (),
        number: int = 0,
        num_scored: int | None = None,
    ) -> AsyncGenerator[Step, None]:
        """Yield the steps of a continuation; closing the iterator frees its row.

        Raises:
            RuntimeError: The engine cannot write it, or any text.
        """
        steps, receive = _inbox()
        added: list[Continuation] = []

        def add() -> None:
            continuation = self._engine.add(
                prompt_ids, config, stops=stops, number=number, num_scored=num_scored
            )
            added.append(continuation)
            self._receivers[continuation] = receive

        def remove() -> None:
            for continuation in added:
                self._receivers.pop(continuation, None)
                self._engine.remove(continuation)

        self._num_texts += 1
        try:
            self._order(add, receive)
            while True:
                step = await steps.get()
                if isinstance(step, Exception):
                    raise step
                yield step
                if step.end is not None:
                    return
        finally:
            self._num_texts -= 1
            self._orders.put(remove)

    async def score(self, ids: Sequence[int], num_alternatives: int) -> list[Score]:
        """Score the tokens of a text after the first one, as `score_tokens` does."""
        answers, receive = _inbox()
        self._order(lambda: receive(score_tokens(self._model, ids, num_alternatives)), receive)
        answer = await answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _order(self, action: Callable[[], None], receive: Callable[[Any], None]) -> None:
        """Let the thread do something; an error goes to who asked for it."""

        def carry_out() -> None:
            try:
                action()
            except Exception as error:
                receive(RuntimeError(f"the model cannot read this: {error}"))

        self._orders.put(carry_out)

    def _run(self) -> None:
        while True:
            while self._engine.is_idle or not self._orders.empty():
                order = self._orders.get()
                if order is None:
                    return
                order()
            try:
                advanced = self._engine.step(self._tell_error)
            except Exception as error:  # of a forward pass, which concerns all texts
                for continuation in list(self._receivers):
                    self._engine.remove(continuation)
                    self._tell_error(continuation, error)
                continue
            for continuation in advanced:
                self._tell(continuation)

    def _tell_error(self, continuation: Continuation, error: Exception) -> None:
        receive = self._receivers.pop(continuation)
        receive(RuntimeError(f"the model cannot write: {error}"))

    def _tell(self, continuation: Continuation) -> None:
        id = None if continuation.end == "stop" else continuation.ids[-1]
        score = continuation.scores[-1] if continuation.scores else None
        self._receivers[continuation](Step(id=id, score=score, end=continuation.end))
        if continuation.end is not None:
            del self._receivers[continuation]


def _inbox() -> tuple[asyncio.Queue[Any], Callable[[Any], None]]:
    """Return a queue of this event loop, and a function that any thread may fill it with."""
    loop, inbox = asyncio.get_running_loop(), asyncio.Queue[Any]()

    def receive(item: Any) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(inbox.put_nowait, item)

    return inbox, receive
