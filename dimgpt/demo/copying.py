"""Measures when a model of the demo learns to copy from a text.

A scene tells its facts twice, and an answer repeats a fact of the text before its question. A model
that copies predicts a word better at its repetition than at its first occurrence. For names, the
model only needs to know which names the text contains; a scene repeats its facts in any order, so
repeated names still cost about 0.7 nats. For nouns, the model must also know who does what.
"""

import functools
import re
from collections.abc import Callable, Sequence
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from dimgpt.data.conversation import encode_prompt
from dimgpt.demo.corpus import held_out_questions
from dimgpt.demo.lexicon import WORDS
from dimgpt.demo.stories import write_scene
from dimgpt.model.transformer import Transformer
from dimgpt.text.tokenizer import Tokenizer

COPYING = ("first_name", "repeated_name", "first_noun", "repeated_noun")
"""The measured losses, each in nats a word."""
_NUM_SCENES, _QUESTIONS_PER_KIND = 32, 8  # about 3,000 tokens: one forward pass
_NAMES = [name.text for name in WORDS["name"]]
_NOUNS = [*WORDS["animal"], *WORDS["thing"], *WORDS["food"], *(p.noun for p in WORDS["place"])]
_FORMS = [form for noun in _NOUNS for form in (noun.singular, noun.plural)]
# Matches bytes, because a token may end within a character; `\b` would not treat é as a letter.
_WORD = re.compile(f"(?<=[ '])(?:({'|'.join(_NAMES)})|({'|'.join(_FORMS)}))(?=[ .,?])".encode())


def copying_score(
    model: Transformer, tokenizer: Tokenizer, paths: Sequence[str]
) -> Callable[[], dict[str, float]] | None:
    """Return a function that measures `COPYING` on texts that were not in the training.

    A model of the stories is measured on new scenes, a chat model on held-out questions.

    Args:
        model: The caller puts it into evaluation mode before each measurement.
        tokenizer: The model's.
        paths: Sources of its training texts.

    Returns:
        `None` if the sources are not the demo's, or if the context is too short to repeat a name
        and a noun.
    """
    texts: list[tuple[list[int], int]] = []  # ids, and the token from which repeated words count
    kinds = {path.rpartition("/")[0] for path in paths}
    if kinds == {"demo://stories"}:
        rng = Random("copying")
        texts = [(tokenizer.encode_beginning(write_scene(rng)), 0) for _ in range(_NUM_SCENES)]
    elif kinds == {"demo://conversations"}:
        for question in held_out_questions(_QUESTIONS_PER_KIND, seed=1):  # the final score: seed 0
            if question.held_out == "text":
                prompt = encode_prompt(question.conversation.messages, tokenizer)
                texts.append((prompt + tokenizer.encode(question.answer), len(prompt)))
    longest = model.config.context_length + 1
    rows = [torch.tensor(ids[:longest]) for ids, _ in texts]
    marked = [
        mark_words(row.tolist(), tokenizer, first_repeated=start)
        for row, (_, start) in zip(rows, texts, strict=True)
    ]
    counts = sum((words for _, words in marked), torch.zeros(len(COPYING)))
    if not counts.all():
        return None
    ids = pad_sequence(rows, batch_first=True)
    groups = pad_sequence([tokens for tokens, _ in marked], batch_first=True)
    return functools.partial(measure_copying, model, ids, groups, counts)


def mark_words(
    ids: Sequence[int], tokenizer: Tokenizer, *, first_repeated: int
) -> tuple[Tensor, Tensor]:
    """Find the names and the nouns of a text.

    Args:
        ids: The text, (T,).
        tokenizer: The tokenizer of these ids.
        first_repeated: Repeated words count from this token on.

    Returns:
        For each token 1 + the index of its word's kind in `COPYING`, or 0, int64 (T,); and the
        number of words of each kind, float32 (4,).
    """
    pieces = [tokenizer.token_bytes(id) for id in ids]
    token_of_byte = [token for token, piece in enumerate(pieces) for _ in piece]
    groups, counts = torch.zeros(len(ids), dtype=torch.long), torch.zeros(len(COPYING))
    said: set[bytes] = set()
    for word in _WORD.finditer(b"".join(pieces)):
        first, last = token_of_byte[word.start()], token_of_byte[word.end() - 1]
        is_noun, is_repeated = word.lastindex == 2, word[0] in said
        said.add(word[0])
        if not is_repeated or first >= first_repeated:
            kind = 2 * is_noun + is_repeated
            groups[first : last + 1] = 1 + kind
            counts[kind] += 1
    return groups, counts


@torch.no_grad()
def measure_copying(
    model: Transformer, ids: Tensor, groups: Tensor, counts: Tensor
) -> dict[str, float]:
    """Return the loss of each kind of word in `COPYING`, in nats a word.

    Args:
        model: In evaluation mode, on any device.
        ids: Texts, int64 (N, T), padded with any id.
        groups: Results of `mark_words` for each text, (N, T).
        counts: Number of words of all texts, (4,).
    """
    ids = ids.to(model.token_embedding.weight.device)
    logits = model(ids[:, :-1]).float()
    losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").cpu()
    sums = torch.bincount(groups[:, 1:].flatten(), losses, minlength=1 + len(COPYING))
    return dict(zip(COPYING, (sums[1:] / counts).tolist(), strict=True))
