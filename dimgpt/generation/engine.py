"""Many texts at a time: each begins when there is room, and makes room when it ends.

Each step adds one token to every text that is being written. A prompt is read at once, together
with those of the same length; from then on texts of all lengths share a forward pass. Yu et al.
2022, "Orca", https://www.usenix.org/conference/osdi22/presentation/yu, section 4.1.

The engine knows nothing about characters. Where a text is longer than the context it does one of
two things. `crop`, as the original DimensionGPT, keeps the last `context_length` tokens, positions
restarting at 0: every position changes, the cache is invalid, and each token costs a full forward
pass. `run_on` counts on: the windows slide, and each token costs what it did before.
Shapes: B texts, T tokens, V vocabulary.
"""

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from dimgpt.compilation import compiled
from dimgpt.config import SamplingConfig
from dimgpt.generation.sampling import draw, next_token_probabilities
from dimgpt.generation.scores import Score, score
from dimgpt.model.cache import KVCache
from dimgpt.model.transformer import Transformer
from dimgpt.text.special_tokens import SpecialTokens


@dataclass(eq=False, kw_only=True, slots=True)
class Continuation:
    """A text that an engine continues."""

    ids: list[int]
    """The prompt, and what was written after it, without the token that ends it."""
    config: SamplingConfig
    """Without seed and number of tokens: texts with the same one are chosen for together."""
    stops: tuple[int, ...]
    num_left: int
    """Tokens that may still be written."""
    num_read: int
    """Tokens of the prompt that its row of the cache has read already."""
    generator: torch.Generator
    num_scored: int | None
    """Alternatives to keep in `scores`; `None` keeps no scores."""
    scores: list[Score] = field(default_factory=list)
    """One per written token, also of the one that ended the text."""
    end: Literal["stop", "length", "removed"] | None = None
    """Why it ended: the model ended it, it has as many tokens as it may, or somebody removed it."""


class Engine:
    """Continue texts with one model; `step` until `is_idle`.

    Args:
        model: Where its weights are, it computes, in evaluation mode; it keeps the mode it had.
        special_tokens: Ids that are never produced, or that end a text.
        cache: One row for each text that is written at the same time.
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
        """Whether there is nothing to write."""
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
        """Let a prompt wait for the next step that has room.

        Args:
            prompt_ids: An empty prompt is ⮜start-of-text⮞; of a long one, the last
                `context_length` tokens count.
            config: Settings of the choice.
            stops: Ids that end the text besides ⮜end-of-text⮞, as a chat format has them.
            number: Is added to the seed.
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
        """Stop writing a text; its place is free at once."""
        if continuation.end is None:
            continuation.end = "removed"
        self._forget_ended()

    def step(self) -> list[Continuation]:
        """Add a token to each text for which there is room, or end it, and return these texts.

        Raises:
            ValueError: The model's logits are not finite.
        """
        passes = [*self._decode(), *self._read_again(), *self._read_prompts()]
        for continuations, logits in passes:
            for group in _by_settings(continuations):
                _choose(group, logits, self._special_tokens, self._model.config.context_length)
        self._forget_ended()
        return [continuation for continuations, _ in passes for continuation in continuations]

    def _decode(self) -> Iterator[tuple[list[Continuation], Tensor]]:
        """Read the last token of each text that the cache holds the others of."""
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
        """Read the last `context_length` tokens of each text that is longer, without a cache."""
        if self._cropped:
            limit = self._model.config.context_length
            ids = torch.tensor([continuation.ids[-limit:] for continuation in self._cropped])
            yield list(self._cropped), _last_logits(self._model, ids, None)

    def _read_prompts(self) -> Iterator[tuple[list[Continuation], Tensor]]:
        """Read the prompts for which there are free rows, those of the same length together."""
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
        """Return the last logits, (B, V), of ids (B, T) that follow in the rows from `begin`."""
        cache, end = self._cache, begin + len(ids)
        if len(ids) == len(cache.lengths):
            return _last_logits(self._model, ids, cache)
        rows = cache.rows(begin, end)
        logits = _last_logits(self._model, ids, rows)
        cache.lengths[begin:end] = rows.lengths
        return logits

    def _forget_ended(self) -> None:
        for row in reversed(range(len(self._cached))):
            if self._cached[row].end is not None:
                self._free(row)
        self._cropped = [each for each in self._cropped if each.end is None]
        self._waiting = deque(each for each in self._waiting if each.end is None)

    def _free(self, row: int) -> None:
        """Take a text out of the cache: the last row moves to its place."""
        last = self._cached.pop()
        if row < len(self._cached):
            self._cached[row] = last
            self._cache.move(len(self._cached), row)

    def _checked(self, prompt_ids: Sequence[int]) -> list[int]:
        """Return the tokens of a prompt that count, at least one, all in the vocabulary."""
        vocab_size, special_tokens = self._model.config.vocab_size, self._special_tokens
        if vocab_size <= special_tokens.end_of_text:
            raise ValueError(
                f"vocab_size is {vocab_size}: id {special_tokens.end_of_text}, which ends a text, "
                "is not in it; train with a vocabulary that has the special tokens"
            )
        for position, id in enumerate(prompt_ids):
            if not 0 <= id < vocab_size:
                raise ValueError(
                    f"id {id} at position {position} of the prompt: ids lie in "
                    f"0..{vocab_size - 1}; encode the prompt with the model's own tokenizer"
                )
        start = special_tokens.start_of_text
        beginning = special_tokens.end_of_text if start is None else start
        return list(prompt_ids)[-self._model.config.context_length :] or [beginning]


@torch.inference_mode()
def _last_logits(model: Transformer, new_ids: Tensor, cache: KVCache | None) -> Tensor:
    """Return the logits (B, V) after ids (B, T), which follow those that the cache has read."""
    was_training = model.training
    if was_training:
        model.eval()
    ids = new_ids.to(model.token_embedding.weight.device)
    try:
        if cache is None or not cache.use_compile or ids.shape[1] > 1:
            return _compute_last(model, ids, cache)
        logits = _compiled_step(ids.device.type)(model, ids, cache.for_one_step())
        cache.advance(1)
        return logits
    finally:
        if was_training:
            model.train()


def _compute_last(model: Transformer, ids: Tensor, cache: KVCache | None) -> Tensor:
    # Of the last position only: the logits of a whole batch of prompts may take gigabytes.
    return model.logits(model.hidden_states(ids, cache)[:, -1]).float()


@functools.cache
def _compiled_step(device: str) -> Callable[[Transformer, Tensor, KVCache], Tensor]:
    # On a GPU also a CUDA graph, since there a small model waits for the launches of its kernels.
    return compiled(_compute_last, mode="reduce-overhead" if device == "cuda" else "default")


def _by_settings(
    continuations: list[Continuation],
) -> list[list[tuple[int, Continuation]]]:
    """Part numbered texts into groups that one call can choose for."""
    groups: dict[object, list[tuple[int, Continuation]]] = {}
    for row, each in enumerate(continuations):
        length = len(each.ids) if each.config.has_penalty else None
        groups.setdefault((each.config, each.stops, length), []).append((row, each))
    return list(groups.values())


def _choose(
    group: list[tuple[int, Continuation]],
    logits: Tensor,
    special_tokens: SpecialTokens,
    context_length: int,
) -> None:
    """Add the next token to texts with the same settings, or end them."""
    rows, continuations = zip(*group, strict=True)
    config, stops = continuations[0].config, continuations[0].stops
    logits = logits[list(rows)] if len(rows) < len(logits) else logits
    contexts = [each.ids if config.has_penalty else [] for each in continuations]
    probabilities = next_token_probabilities(
        logits,
        torch.tensor(contexts, dtype=torch.int64),
        config,
        special_tokens,
        context_length=context_length,
        stops=stops,
    ).cpu()
    for number, each in enumerate(continuations):
        is_greedy = config.temperature == 0
        one = probabilities[number]
        id = int(one.argmax()) if is_greedy else draw(one, each.generator)
        if each.num_scored is not None:
            each.scores.append(score(logits[number], id, each.num_scored))
        each.num_left -= 1
        if id == special_tokens.end_of_text:
            each.end = "stop"
        else:
            each.ids.append(id)
            each.end = None if each.num_left else "length"


def _new_generator(seed: int | None, number: int) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed((seed + number) % 2**64)
    return generator
