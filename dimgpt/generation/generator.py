"""Token ids in, a stream of token ids out; and the same for text.

`generate_ids` and `generate_batch` know nothing about text. Beyond `context_length` they do one of
two things. `crop`, as the original DimensionGPT, keeps the last `context_length` tokens, positions
restarting at 0: every position changes, the cache is invalid, and each token costs a full forward
pass. `run_on` counts on: the windows slide, and each token costs what it did before.
Shapes: B rows, T tokens so far, V vocabulary.
"""

import codecs
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from dimgpt.config import SamplingConfig
from dimgpt.generation.sampling import draw, next_token_probabilities
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
        """Continue a prompt, piece by piece: whole characters only, without the prompt itself."""
        special_tokens = self.tokenizer.special_tokens
        prompt_ids = self.tokenizer.encode_beginning(prompt)
        ids = generate_ids(self.model, prompt_ids, config, special_tokens=special_tokens)
        return stream_text(ids, self.tokenizer)

    def complete(self, prompt: str, config: SamplingConfig) -> str:
        """Continue a prompt, all at once, without the prompt itself."""
        return "".join(self.stream(prompt, config))

    def complete_batch(
        self, prompts: Sequence[Sequence[int]], config: SamplingConfig, *, is_chat: bool = False
    ) -> list[list[int]]:
        """Continue many prompts of ids together; see `generate_batch`."""
        special_tokens = self.tokenizer.special_tokens
        stops = self.tokenizer.chat.stops if is_chat else ()
        return generate_batch(
            self.model, prompts, config, special_tokens=special_tokens, stops=stops
        )


def stream_text(ids: Iterable[int], tokenizer: Tokenizer) -> Iterator[str]:
    """Turn ids into text as they come, whole characters only.

    The pieces, joined, are what decoding all ids at once gives.
    """
    return codecs.iterdecode(map(tokenizer.token_bytes, ids), "utf-8", errors="replace")


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

    The model computes in evaluation mode and keeps the mode that it had.

    Args:
        model: Where its weights are, it computes.
        prompt_ids: An empty prompt is ⮜start-of-text⮞; of a long one, the last `context_length`
            tokens count.
        config: Settings of the choice.
        special_tokens: Ids that are never produced, or that end the text.
        stops: Further ids that end the text, as a chat format has them.
        cache: Has read the first `cache.length` tokens of the prompt, fewer than all; reads the
            others, and what follows up to the context. `None` begins with an empty one.

    Raises:
        ValueError: An id is not in the vocabulary, or `beyond_context` is not for this model;
            raised at once, before the device sees it.
    """
    prompt = _checked_prompt(model, prompt_ids, special_tokens)
    cache = new_cache(model, 1, config) if cache is None else cache
    steps = _lockstep(model, {0: prompt}, config, special_tokens, stops=stops, cache=cache)
    return (id for (id,) in steps if id is not None)


def generate_batch(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    config: SamplingConfig,
    *,
    special_tokens: SpecialTokens,
    stops: Sequence[int] = (),
    batch_size: int = 64,
) -> list[list[int]]:
    """Continue many prompts together; each continuation is what `generate_ids` yields alone.

    Prompt number i draws with `seed + i`. Prompts of about one length run together, `batch_size`
    at a time. Arguments and errors are those of `generate_ids`.
    """
    checked = [_checked_prompt(model, prompt, special_tokens) for prompt in prompts]
    order = sorted(range(len(checked)), key=lambda number: len(checked[number]))
    answers: dict[int, list[int]] = {}
    for start in range(0, len(order), batch_size):
        group = {number: checked[number] for number in order[start : start + batch_size]}
        cache = new_cache(model, len(group), config)
        steps = _lockstep(model, group, config, special_tokens, stops=stops, cache=cache)
        for number, ids in zip(group, zip(*steps, strict=True), strict=True):
            answers[number] = [id for id in ids if id is not None]
    return [answers[number] for number in range(len(checked))]


def _lockstep(
    model: Transformer,
    prompts: Mapping[int, list[int]],
    config: SamplingConfig,
    special_tokens: SpecialTokens,
    *,
    stops: Sequence[int],
    cache: KVCache,
) -> Iterator[list[int | None]]:
    """Yield one id a row and step; `None` while the row still reads its prompt, and once it ended.

    All rows have the same length at all times, so that no padding and no mask is needed: the
    prompts are read together up to the shortest one's end, the others token by token from there.
    The keys of `prompts` are the numbers that their seeds follow from. The cache has read at most
    the beginning that the prompts share.
    """
    limit, end = model.config.context_length, special_tokens.end_of_text
    choose = (lambda one_hot, _: int(one_hot.argmax())) if config.temperature == 0 else draw
    generators = [_new_generator(config.seed, number) for number in prompts]
    length = min(map(len, prompts.values()))
    ids = torch.tensor([prompt[:length] for prompt in prompts.values()])  # (B, T)
    num_left = [config.max_new_tokens] * len(prompts)
    while any(num_left):
        is_cropped = length > limit and not cache.runs_on
        new_ids = ids[:, -limit:] if is_cropped else ids[:, cache.length :]
        logits = _last_logits(model, new_ids, None if is_cropped else cache)
        probabilities = next_token_probabilities(
            logits, ids, config, special_tokens, context_length=limit, stops=stops
        ).cpu()
        column, chosen = [end] * len(prompts), [end] * len(prompts)
        for row, prompt in enumerate(prompts.values()):
            if length < len(prompt):
                column[row] = prompt[length]
            elif num_left[row] > 0:
                column[row] = chosen[row] = choose(probabilities[row], generators[row])
                num_left[row] = 0 if chosen[row] == end else num_left[row] - 1
        yield [None if id == end else id for id in chosen]
        ids = torch.cat([ids, torch.tensor(column)[:, None]], dim=1)
        length += 1


@torch.inference_mode()
def _last_logits(model: Transformer, new_ids: Tensor, cache: KVCache | None) -> Tensor:
    """Return the logits (B, V) after ids (B, T), which follow those that the cache has read."""
    weight = model.token_embedding.weight
    was_training = model.training
    if was_training:
        model.eval()
    try:
        # Of the last position only: the logits of a whole batch of prompts may take gigabytes.
        hidden = model.hidden_states(new_ids.to(weight.device), cache)[:, -1]
        return model.logits(hidden).float()
    finally:
        if was_training:
            model.train()


def new_cache(model: Transformer, batch_size: int, config: SamplingConfig) -> KVCache:
    """Return an empty cache that does beyond the context what the settings say.

    Raises:
        ValueError: The model cannot run on.
    """
    return model.new_cache(batch_size, runs_on=config.beyond_context == "run_on")


def _new_generator(seed: int | None, number: int) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed((seed + number) % 2**64)
    return generator


def _checked_prompt(
    model: Transformer, prompt_ids: Sequence[int], special_tokens: SpecialTokens
) -> list[int]:
    """Return the tokens of a prompt that count, at least one, all in the vocabulary."""
    vocab_size = model.config.vocab_size
    if vocab_size <= special_tokens.end_of_text:
        raise ValueError(
            f"vocab_size is {vocab_size}: id {special_tokens.end_of_text}, which ends a text, is "
            "not in it; train with a vocabulary that has the special tokens"
        )
    for position, id in enumerate(prompt_ids):
        if not 0 <= id < vocab_size:
            raise ValueError(
                f"id {id} at position {position} of the prompt: ids lie in 0..{vocab_size - 1}; "
                "encode the prompt with the model's own tokenizer"
            )
    start = special_tokens.start_of_text
    beginning = special_tokens.end_of_text if start is None else start
    return list(prompt_ids)[-model.config.context_length :] or [beginning]
