"""Runs an engine in its own thread and passes its tokens to an event loop."""

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
    """Result of one engine step for one text."""

    id: int | None
    """The new token; `None` if the model ended the text."""
    score: Score | None
    """Score of the token, if scores were asked for."""
    end: End | None
    """Why the text ended; `None` if it continues."""


class BusyError(RuntimeError):
    """Too many texts are waiting."""


class EngineThread:
    """One engine that generates the texts of many callers.

    Only the thread touches the engine. Callers queue orders, and it runs them between steps.

    Args:
        model: In evaluation mode.
        special_tokens: As in `Engine`.
        cache: Has one row for each text that is generated at the same time.
        max_waiting: Number of texts that may wait for a row; further ones are refused.
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
        self._num_texts = 0  # changed by the event loop only, never by the thread
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the thread after its current step."""
        self._orders.put(None)
        self._thread.join()

    def require_room(self, num_texts: int) -> None:
        """Check that `num_texts` more texts may wait.

        Raises:
            BusyError: Too many texts are waiting.
        """
        if self._num_texts + num_texts > self._max_texts:
            raise BusyError(
                f"{self._num_texts} texts are running or waiting, and the limit is "
                f"{self._max_texts}: try again later"
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
            RuntimeError: The engine failed.
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
        """Queue an action for the thread; `receive` gets the error if it fails."""

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
            except Exception as error:  # a forward pass failed: all texts are lost
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
    """Return a queue of this event loop, and a function with which any thread can add to it."""
    loop, inbox = asyncio.get_running_loop(), asyncio.Queue[Any]()

    def receive(item: Any) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(inbox.put_nowait, item)

    return inbox, receive
