"""Streams new token ids or text after a prompt; `engine.py` computes them."""

import codecs
from collections.abc import Iterable, Iterator, Sequence

from dimgpt.config import SamplingConfig
from dimgpt.generation.continuation import Continuation
from dimgpt.generation.engine import Engine
from dimgpt.model.cache import KVCache
from dimgpt.model.transformer import Transformer
from dimgpt.text.special_tokens import SpecialTokens
from dimgpt.text.tokenizer import Tokenizer


class TextGenerator:
    """Continue texts with a model and its tokenizer.

    Raises:
        ValueError: The tokenizer has another number of tokens than the model.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        tokenizer.require_vocab_size(model.config.vocab_size)
        self.model = model
        self.tokenizer = tokenizer

    def stream(self, prompt: str, config: SamplingConfig) -> Iterator[str]:
        """Yield the text after a prompt in pieces of complete characters."""
        special_tokens = self.tokenizer.special_tokens
        prompt_ids = self.tokenizer.encode_beginning(prompt)
        ids = generate_ids(self.model, prompt_ids, config, special_tokens=special_tokens)
        return stream_text(ids, self.tokenizer, config.stop_strings)

    def complete(self, prompt: str, config: SamplingConfig) -> str:
        """Return the continuation of a prompt, without the prompt."""
        return "".join(self.stream(prompt, config))

    def complete_batch(
        self, prompts: Sequence[Sequence[int]], config: SamplingConfig, *, is_chat: bool = False
    ) -> list[list[int]]:
        """Continue many prompts of ids together; stop strings are ignored; see `generate_batch`."""
        special_tokens = self.tokenizer.special_tokens
        stops = self.tokenizer.chat.stops if is_chat else ()
        return generate_batch(
            self.model, prompts, config, special_tokens=special_tokens, stops=stops
        )


class GrowingText:
    """Decodes ids one by one into complete characters, up to the first stop string.

    Bytes of an incomplete character, and a possible beginning of a stop string, are held back.
    """

    def __init__(self, tokenizer: Tokenizer, stop_strings: Sequence[str] = ()) -> None:
        self._tokenizer, self._stop_strings = tokenizer, stop_strings
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.has_stopped = False
        """Whether a stop string was found, so that the text has ended."""

    def add(self, id: int) -> str:
        """Add a token; return the text that is now complete, often none."""
        return self._released(self._decoder.decode(self._tokenizer.token_bytes(id)))

    def finish(self) -> str:
        """Return the text that was held back; call it after the last token."""
        text = self._released(self._decoder.decode(b"", final=True)) + self._held
        self._held = ""
        return text

    def _released(self, text: str) -> str:
        if self.has_stopped:
            return ""
        text = self._held + text
        found = [at for stop in self._stop_strings if (at := text.find(stop)) >= 0]
        if found:
            self.has_stopped, self._held = True, ""
            return text[: min(found)]
        beginnings = (stop[:size] for stop in self._stop_strings for size in range(1, len(stop)))
        num_held = max((len(part) for part in beginnings if text.endswith(part)), default=0)
        released, self._held = text[: len(text) - num_held], text[len(text) - num_held :]
        return released


def stream_text(
    ids: Iterable[int], tokenizer: Tokenizer, stop_strings: Sequence[str] = ()
) -> Iterator[str]:
    """Decode ids as they come, up to the first stop string.

    Without stop strings, the joined pieces equal the decoding of all ids at once.
    """
    text = GrowingText(tokenizer, stop_strings)
    for id in ids:
        if piece := text.add(id):
            yield piece
        if text.has_stopped:
            return
    if piece := text.finish():
        yield piece


def generate_ids(
    model: Transformer,
    prompt_ids: Sequence[int],
    config: SamplingConfig,
    *,
    special_tokens: SpecialTokens,
    stops: Sequence[int] = (),
    cache: KVCache | None = None,
) -> Iterator[int]:
    """Continue a prompt until ⮜end-of-text⮞, which is not yielded, or `max_new_tokens`.

    Args:
        model: As in `Engine`.
        prompt_ids: As in `Engine.add`, as are `config` and `stops`.
        config: Sampling settings.
        special_tokens: Ids that are never produced, or that end the text.
        stops: Further ids that end the text, such as those of a chat format.
        cache: One row that has read the first `cache.length` tokens of the prompt, fewer than all.
            `None` creates an empty one.

    Raises:
        ValueError: An id is not in the vocabulary, or the model does not support `beyond_context`;
            raised at once.
    """
    cache = new_cache(model, 1, config) if cache is None else cache
    engine = Engine(model, special_tokens, cache=cache)
    return _new_ids(engine, engine.add(prompt_ids, config, stops=stops, num_read=cache.length))


def _new_ids(engine: Engine, continuation: Continuation) -> Iterator[int]:
    while continuation.end is None:
        engine.step()
        if continuation.end != "stop":
            yield continuation.ids[-1]


def generate_batch(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    *,
    special_tokens: SpecialTokens,
    stops: Sequence[int] = (),
    batch_size: int = 64,
) -> list[list[int]]:
    """Continue many prompts, `batch_size` at a time; the results equal those of `generate_ids`.

    Prompt number i draws with `seed + i`. Arguments and errors are those of `generate_ids`.
    """
    cache = new_cache(model, min(batch_size, len(prompts)), config)
    engine = Engine(model, special_tokens, cache=cache)
    # Prompts of the same length are read together.
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    added = {
        number: engine.add(prompts[number], config, stops=stops, number=number) for number in order
    }
    lengths = {number: len(continuation.ids) for number, continuation in added.items()}
    while not engine.is_idle:
        engine.step()
    return [added[number].ids[lengths[number] :] for number in range(len(prompts))]


def new_cache(model: Transformer, batch_size: int, config: SamplingConfig) -> KVCache:
    """Return an empty cache for these settings.

    Raises:
        ValueError: The settings say `run_on`, and the model does not support it.
    """
    runs_on = config.beyond_context == "run_on"
    return model.new_cache(batch_size, runs_on=runs_on, use_compile=config.use_compile)
