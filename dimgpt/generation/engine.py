"""Continuous batching: continues many texts at a time; each starts when a cache row is free.

Each step adds one token to every active text. Prompts of the same length are read together; after
that, texts of all lengths share a forward pass. Yu et al. 2022, "Orca",
https://www.usenix.org/conference/osdi22/presentation/yu, section 4.1.

The engine works on ids only. There are two ways to continue a text beyond the context. `crop`, as
in the original DimensionGPT, keeps the last `context_length` tokens and restarts positions at 0:
every position changes, the cache is invalid, and each token costs a full forward pass. `run_on`
continues to count positions: the windows slide, and a token costs the same as before. Shapes: B
texts, T tokens, V vocabulary.
"""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dimgpt.config import SamplingConfig
from dimgpt.generation.compiled_step import last_logits, logits_of_step
from dimgpt.generation.continuation import Continuation, OnError, add_tokens, raise_error
from dimgpt.model.cache import KVCache
from dimgpt.model.transformer import Transformer
from dimgpt.text.special_tokens import SpecialTokens


class Engine:
    """Continues texts with one model; call `step` until `is_idle`.

    Args:
        model: Evaluated on the device of its weights; its training mode is restored.
        special_tokens: Ids that are never produced, or that end a text.
        cache: Has one row for each text that is generated at the same time.
    """

    def __init__(
        self, model: Transformer, special_tokens: SpecialTokens, *, cache: KVCache
    ) -> None:
        self._model, self._special_tokens, self._cache = model, special_tokens, cache
        self._waiting: deque[Continuation] = deque()
        self._cached: list[Continuation] = []  # number i has row i
        self._cropped: list[Continuation] = []  # longer than the context, so without a row

    @property
    def is_idle(self) -> bool:
        """Whether no text is waiting or active."""
        return not (self._waiting or self._cached or self._cropped)

    def add(
        self,
        prompt_ids: Sequence[int],
        config: SamplingConfig,
        *,
        stops: Sequence[int] = (),
        number: int = 0,
        num_read: int = 0,
        num_scored: int | None = None,
    ) -> Continuation:
        """Queue a prompt for the next step with a free row.

        Args:
            prompt_ids: An empty prompt becomes ⮜start-of-text⮞; a long one is cropped to its last
                `context_length` tokens.
            config: Sampling settings.
            stops: Ids that end the text besides ⮜end-of-text⮞, such as those of a chat format.
            number: Added to the seed.
            num_read: Tokens of the prompt that the cache has read, fewer than all.
            num_scored: Keep scores, with this many alternatives.

        Raises:
            ValueError: An id is not in the vocabulary; raised before the device sees it.
        """
        ids = self._checked(prompt_ids)
        continuation = Continuation(
            ids=ids,
            config=replace(config, seed=None, max_new_tokens=1),
            stops=tuple(stops),
            num_left=config.max_new_tokens,
            num_read=num_read,
            generator=_new_generator(config.seed, number),
            num_scored=num_scored,
        )
        self._waiting.append(continuation)
        return continuation

    def remove(self, continuation: Continuation) -> None:
        """Stop a text, and free its row at once."""
        if continuation.end is None:
            continuation.end = "removed"
        self._forget_ended()

    def step(self, on_error: OnError = raise_error) -> list[Continuation]:
        """Add a token to each active text, or end it; return these texts.

        Args:
            on_error: Called with a text whose next token cannot be chosen, and with the error. If
                it does not raise, that text ends and is not returned; the others continue.

        Raises:
            ValueError: The model's logits are not finite, and `on_error` raises the error.
        """
        passes = [*self._decode(), *self._read_again(), *self._read_prompts()]
        for continuations, logits in passes:
            add_tokens(
                continuations,
                logits,
                self._special_tokens,
                context_length=self._model.config.context_length,
                on_error=on_error,
            )
        self._forget_ended()
        return [
            each for continuations, _ in passes for each in continuations if each.end != "failed"
        ]

    def _decode(self) -> Iterator[tuple[list[Continuation], Tensor]]:
        """Read the last token of each text whose other tokens are in the cache."""
        limit, cache = self._model.config.context_length, self._cache
        if not cache.runs_on:
            for row in reversed(range(len(self._cached))):
                if len(self._cached[row].ids) > limit:
                    self._cropped.append(self._cached[row])
                    self._free(row)
        if self._cached:
            ids = torch.tensor([[continuation.ids[-1]] for continuation in self._cached])
            yield list(self._cached), self._read(ids, 0)

    def _read_again(self) -> Iterator[tuple[list[Continuation], Tensor]]:
        """Read the last `context_length` tokens of each longer text, without a cache."""
        if self._cropped:
            limit = self._model.config.context_length
            ids = torch.tensor([continuation.ids[-limit:] for continuation in self._cropped])
            yield list(self._cropped), _last_logits(self._model, ids, None)

    def _read_prompts(self) -> Iterator[tuple[list[Continuation], Tensor]]:
        """Read as many prompts as there are free rows, those of the same length together."""
        num_rows = len(self._cache.lengths)
        num_free = num_rows - len(self._cached) - len(self._cropped)
        new = [self._waiting.popleft() for _ in range(min(num_free, len(self._waiting)))]
        for (_, num_read), group in itertools.groupby(
            new, key=lambda continuation: (len(continuation.ids), continuation.num_read)
        ):
            together, begin = list(group), len(self._cached)
            self._cached += together
            self._cache.lengths[begin : len(self._cached)] = [num_read] * len(together)
            ids = torch.tensor([continuation.ids[num_read:] for continuation in together])
            yield together, self._read(ids, begin)

    def _read(self, ids: Tensor, begin: int) -> Tensor:
        """Return the last logits, (B, V), after ids (B, T) in the rows from `begin`."""
        cache, end = self._cache, begin + len(ids)
        if len(ids) == len(cache.lengths):
            return _last_logits(self._model, ids, cache)
        rows = cache.rows(begin, end)
        logits = _last_logits(self._model, ids, rows)
        cache.lengths[begin:end] = rows.lengths
        return logits

    def _forget_ended(self) -> None:
        for row in reversed(range(len(self._cached))):
            if self._cached[row].end == "failed":
                self._cache.clear(row)
            if self._cached[row].end is not None:
                self._free(row)
        self._cropped = [each for each in self._cropped if each.end is None]
        self._waiting = deque(each for each in self._waiting if each.end is None)

    def _free(self, row: int) -> None:
        last = self._cached.pop()
        if row < len(self._cached):
            self._cached[row] = last
            self._cache.move(len(self._cached), row)

    def _checked(self, prompt_ids: Sequence[int]) -> list[int]:
        """Return the used tokens of a prompt, at least one; check that the vocabulary has all."""
        vocab_size, special_tokens = self._model.config.vocab_size, self._special_tokens
        if vocab_size <= special_tokens.end_of_text:
            raise ValueError(
                f"vocab_size is {vocab_size}: id {special_tokens.end_of_text}, which ends a text, "
                "is not in it; train with a vocabulary that has the special tokens"
            )
        for position, id in enumerate(prompt_ids):
            if not 0 <= id < vocab_size:
                raise ValueError(
                    f"id {id} at position {position} of the prompt: ids are 0 to "
                    f"{vocab_size - 1}; encode the prompt with the model's own tokenizer"
                )
        start = special_tokens.start_of_text
        beginning = special_tokens.end_of_text if start is None else start
        return list(prompt_ids)[-self._model.config.context_length :] or [beginning]


@torch.inference_mode()
def _last_logits(model: Transformer, new_ids: Tensor, cache: KVCache | None) -> Tensor:
    """Return the logits (B, V) after ids (B, T), which follow those in the cache."""
    was_training = model.training
    if was_training:
        model.eval()
    ids = new_ids.to(model.token_embedding.weight.device)
    try:
        if cache is None or not cache.use_compile or ids.shape[1] > 1:
            return last_logits(model, ids, cache)
        return logits_of_step(model, ids, cache)
    finally:
        if was_training:
            model.train()


def _new_generator(seed: int | None, number: int) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed((seed + number) % 2**64)
    return generator
