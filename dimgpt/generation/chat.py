"""A conversation with the model: history, trimming, streamed answers.

`generate_ids` chooses the tokens. Special tokens that a user types stay text. The cache is kept
between questions, so the model reads only new tokens.
"""

import itertools
import logging
import operator
from collections.abc import Generator, Iterable, Iterator, Sequence

from dimgpt.config import SamplingConfig
from dimgpt.data.conversation import Message, encode_message, encode_prompt
from dimgpt.generation.generator import generate_ids, new_cache, stream_text
from dimgpt.model.cache import KVCache
from dimgpt.model.transformer import Transformer
from dimgpt.settings import override
from dimgpt.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)


class ChatSession:
    """A conversation: `ask` streams the answer to the next question.

    If the chat format has no system role, the system prompt is left out, with a warning.

    Raises:
        ValueError: The tokenizer has another number of tokens than the model.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        config: SamplingConfig,
        system_prompt: str | None = None,
    ) -> None:
        tokenizer.require_vocab_size(model.config.vocab_size)
        if system_prompt is not None and tokenizer.chat.role_of("system") is None:
            name = tokenizer.chat.format.name
            log.warning("chat format %r has no system role: the system prompt is left out", name)
            system_prompt = None
        self.model = model
        self.tokenizer = tokenizer
        self.config = config
        self.system_prompt = system_prompt
        self._turns: list[tuple[Message, Message]] = []  # question, answer
        self._cache: KVCache | None = None
        self._ids: list[int] = []  # begins with the tokens that the cache has read

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages since the last reset, including those that no longer fit the context."""
        return tuple(message for turn in self._turns for message in turn)

    def reset(self) -> None:
        """Forget the conversation; the system prompt stays."""
        self._turns.clear()

    def restore(self, messages: Sequence[Message]) -> None:
        """Replace the conversation by these messages, without a system prompt.

        Raises:
            ValueError: The messages do not alternate between user and assistant.
        """
        turns = list(zip(messages[::2], messages[1::2], strict=False))
        for number, turn in enumerate(turns, start=1):
            if (roles := [message.role for message in turn]) != ["user", "assistant"]:
                raise ValueError(
                    f"turn {number} has the roles {roles[0]!r} and {roles[1]!r}: they must be "
                    "'user' and 'assistant'"
                )
        if len(messages) % 2:
            raise ValueError(f"message {len(messages)} has no answer: add one, or remove it")
        self.reset()
        self._turns.extend(turns)

    def ask(self, text: str) -> Generator[str, None, None]:
        """Stream the answer to a question.

        The turn joins the history when the stream ends. If the stream is closed early, the answer
        in the history is the part that was read.
        """
        question = Message(role="user", text=text)
        special_tokens, stops = self.tokenizer.special_tokens, self.tokenizer.chat.stops
        # A longer prompt is cropped, and its tokens then have other positions than in the cache.
        prompt = self.prompt_ids(question)[-self.model.config.context_length :]
        config = self._resolved_config()
        cache: KVCache | None = self._take_cache(prompt, config)
        ids = generate_ids(
            self.model, prompt, config, special_tokens=special_tokens, stops=stops, cache=cache
        )
        pieces: list[str] = []
        try:
            for piece in stream_text(_noted(ids, prompt), self.tokenizer, config.stop_strings):
                pieces.append(piece)
                yield piece
        except (Exception, KeyboardInterrupt):
            cache = None  # it may contain an incomplete forward pass
            raise
        finally:
            self._cache, self._ids = cache, prompt
            self._turns.append((question, Message(role="assistant", text="".join(pieces))))

    def prompt_ids(self, question: Message) -> list[int]:
        """Encode the question after the latest complete turns that fit.

        Room for an answer is left: `max_new_tokens`, at most half of the context. The system prompt
        and the question are always included; if they alone exceed the context, the generator keeps
        their last tokens.
        """
        context_length = self.model.config.context_length
        room = context_length - min(self.config.max_new_tokens, context_length // 2)
        system = self.system_prompt
        opening = [] if system is None else [Message(role="system", text=system)]
        room -= len(encode_prompt([*opening, question], self.tokenizer))
        kept: list[Message] = []
        for turn in reversed(self._turns):
            room -= sum(len(encode_message(message, self.tokenizer)) for message in turn)
            if room < 0:
                break
            kept = [*turn, *kept]
        return encode_prompt([*opening, *kept, question], self.tokenizer)

    def _resolved_config(self) -> SamplingConfig:
        """Return the settings with `beyond_context` chosen if it is `None`."""
        if self.config.beyond_context is not None or not self.model.config.can_run_on:
            return self.config
        return override(self.config, beyond_context="run_on")

    def _take_cache(self, prompt: Sequence[int], config: SamplingConfig) -> KVCache:
        """Return a cache that has read the common beginning of the last and this prompt, if it can.

        Otherwise the cache is empty.

        The session has no cache until the answer ends, so two answers never share one.
        """
        cache, self._cache = self._cache, None
        if cache is not None and cache.runs_on == (config.beyond_context == "run_on"):
            same = map(operator.eq, prompt[:-1], self._ids[: cache.length])
            if cache.keep(sum(1 for _ in itertools.takewhile(bool, same))):
                return cache
        return new_cache(self.model, 1, config)


def _noted(ids: Iterable[int], seen: list[int]) -> Iterator[int]:
    for id in ids:
        seen.append(id)
        yield id
