"""Shares the models of one folder, and the conversations with them, between many people.

Only the models and conversations that were used last stay in memory. A dropped conversation is
read again from its messages.
"""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path

from dimgpt.config import SamplingConfig
from dimgpt.generation.chat import ChatSession
from dimgpt.model.transformer import Transformer
from dimgpt.settings import nearest
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.store import CONFIG_NAME

_MAX_MODELS, _MAX_SESSIONS = 2, 8
_SECONDS_BETWEEN_UPDATES = 0.05

OpenedModel = tuple[Transformer, Tokenizer]


class ModelShelf:
    """Opens models by the names of their folders, and keeps the sessions of conversations."""

    def __init__(self, root: Path, open_model: Callable[[Path], OpenedModel]) -> None:
        self.root = root
        self._open_model = open_model
        self._lock = threading.Lock()
        self._models: OrderedDict[Hashable, OpenedModel] = OrderedDict()
        self._sessions: OrderedDict[Hashable, ChatSession] = OrderedDict()

    def names(self) -> list[str]:
        """List the model folders that exist now."""
        return sorted(path.parent.name for path in self.root.glob(f"*/{CONFIG_NAME}"))

    def open(self, name: str) -> OpenedModel:
        """Return a model and its tokenizer.

        Raises:
            ValueError: No folder has this name, or the folder is damaged.
        """
        if name not in (names := self.names()):
            known = f"the models are {', '.join(names)}" if names else "train one first"
            raise ValueError(
                f"no model {str(name)[:80]!r} in {self.root}{nearest(str(name), names)}: {known}"
            )
        path = self.root / name
        with self._lock:
            # If the folder was trained again, it is another model.
            key = (name, (path / CONFIG_NAME).stat().st_mtime_ns)
            if key not in self._models:
                self._models[key] = self._open_model(path)
            self._models.move_to_end(key)
            if len(self._models) > _MAX_MODELS:
                _, (dropped, _) = self._models.popitem(last=False)
                for old in [k for k, s in self._sessions.items() if s.model is dropped]:
                    del self._sessions[old]
            return self._models[key]

    def session(
        self, key: Hashable, name: str, config: SamplingConfig, system_prompt: str | None
    ) -> ChatSession:
        """Return the session of the conversation `key`, with these sampling settings.

        A new session replaces the kept one if the model or the system prompt has changed.
        """
        model, tokenizer = self.open(name)
        session = ChatSession(model, tokenizer, config, system_prompt)
        with self._lock:
            kept = self._sessions.get(key)
            if kept and kept.model is model and kept.system_prompt == session.system_prompt:
                kept.config = config
                session = kept
            self._sessions[key] = session
            self._sessions.move_to_end(key)
            if len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return session


def ask_all(
    sessions: Sequence[ChatSession], question: str, *, seconds: float
) -> Iterator[tuple[list[str], bool]]:
    """Ask several sessions at once; yield their answers so far, and whether time is up.

    Closing the iterator stops all of them.
    """
    answers, end = [""] * len(sessions), time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        streams = {
            number: stack.enter_context(contextlib.closing(session.ask(question)))
            for number, session in enumerate(sessions)
        }
        shown = 0.0
        while streams and time.monotonic() < end:
            for number, stream in list(streams.items()):
                if (piece := next(stream, None)) is None:
                    del streams[number]
                else:
                    answers[number] += piece
            if time.monotonic() - shown > _SECONDS_BETWEEN_UPDATES:
                yield list(answers), False
                shown = time.monotonic()
        yield answers, bool(streams)
