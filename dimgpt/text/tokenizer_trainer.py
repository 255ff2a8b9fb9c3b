"""Trains a vocabulary on raw documents.

Byte-pair encoding proposes tokens; those that greedy encoding uses most often are kept. Documents
are cleaned, split and counted one at a time, so the text is never all in memory; all later steps
use the counts of words. The same documents give the same vocabulary, id for id.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import tokenizers

from dimgpt.text.alphabet import ALPHABET, ASCII, FRENCH_LETTERS
from dimgpt.text.cleaning import cut_between_words, normalize_text, split_at_spaces, split_words
from dimgpt.text.greedy_tokenizer import MAX_TOKEN_CHARACTERS, longest_matches
from dimgpt.text.special_tokens import NEW_LINE, SPECIAL_TOKENS, TAB
from dimgpt.text.tokenizer import reporting

_CHARACTERS_IN_ALL = frozenset(ASCII + FRENCH_LETTERS)
_WORDS_IN_ALL = ("Dimension", "GPT", "IA", "Generative", "Pre", "trained", "Transformer")
_TOKENS_IN_ALL = frozenset(
    space + word for word in (*"0123456789", *_WORDS_IN_ALL) for space in ("", " ")
)
_MIN_ROOM = len(_CHARACTERS_IN_ALL | _TOKENS_IN_ALL)
_FULL_ROOM = len(_TOKENS_IN_ALL.union(ALPHABET))
_OVERSHOOT = 1.1
_MAX_STRETCHES = 1_000_000  # about 150 MB
_WORDS_PER_BATCH = 10_000


def train_vocabulary(
    documents: Iterable[str], vocab_size: int, *, progress: Callable[[int], None] | None = None
) -> list[str]:
    """Choose the tokens of a vocabulary, most frequent first after the special tokens.

    Single characters, digits with a space before them and a few words are always included. Below
    1,426 tokens the alphabet does not fit: then the characters are ASCII, the French letters, and
    the most frequent others up to half of the vocabulary.

    Args:
        documents: Raw texts; they are cleaned here.
        vocab_size: Number of tokens to return, special tokens included.
        progress: Called after each document with the number of characters read so far.

    Raises:
        ValueError: `vocab_size` is too small for the tokens that are always included, or the
            documents are too small to give that many tokens.
    """
    room = vocab_size - len(SPECIAL_TOKENS)
    if room < _MIN_ROOM:
        raise ValueError(
            f"vocab_size is {vocab_size}: it must be at least {_MIN_ROOM + len(SPECIAL_TOKENS)}, "
            "to hold the special tokens, ASCII and the French letters; raise it"
        )
    word_counts = count_words(documents, progress=progress)
    characters = _choose_characters(word_counts, room)
    word_counts.update(" " + character for character in characters)
    candidates = _propose_tokens(word_counts, characters, room)
    for name in SPECIAL_TOKENS:  # they influence the proposals, but are not encoded as text
        del word_counts[name]
    counts = _count_parts(word_counts, lambda word: longest_matches(word, candidates))
    ranked = sorted(candidates, key=lambda token: (-counts[token], token))
    kept = set(characters | _TOKENS_IN_ALL)
    kept.update([token for token in ranked if token not in kept][: room - len(kept)])
    return [*SPECIAL_TOKENS, *(token for token in ranked if token in kept)]


def count_words(
    documents: Iterable[str], *, progress: Callable[[int], None] | None = None
) -> Counter[str]:
    """Count the words of raw documents.

    Special tokens are included, because byte-pair encoding of the original sees them as words: two
    around each document, and those of tabs and line ends.
    """
    words: Counter[str] = Counter()
    stretches: Counter[str] = Counter()  # fewer than words, and cheaper to split off
    for document in reporting(documents, progress):
        for segment in cut_between_words(normalize_text(document)):
            first, *others = split_at_spaces(segment)
            words.update(split_words(first))
            stretches.update(others)
        words.update(("⮜start-of-text⮞", "⮜end-of-text⮞"))
        if len(stretches) > _MAX_STRETCHES:
            _move_to_words(stretches, words)
    _move_to_words(stretches, words)
    words[TAB] = words.pop("\t", 0)
    words[NEW_LINE] = words.pop("\n", 0)
    return words


def _move_to_words(stretches: Counter[str], words: Counter[str]) -> None:
    """Count the words of stretches that follow a space, and clear the stretches."""
    words.update(_count_parts(stretches, lambda stretch: split_words(" " + stretch)))
    stretches.clear()


def _count_parts(counts: Counter[str], split: Callable[[str], Iterable[str]]) -> Counter[str]:
    """Count the parts of texts, given the count of each text."""
    parts: Counter[str] = Counter()
    for text, count in counts.items():
        for part in split(text):
            parts[part] += count
    return parts


def _choose_characters(word_counts: Counter[str], room: int) -> frozenset[str]:
    """Return the single characters of a vocabulary with `room` tokens of text."""
    if room >= _FULL_ROOM:
        return frozenset(ALPHABET)
    counts = _count_parts(word_counts, iter)
    others = sorted(
        counts.keys() & set(ALPHABET) - _CHARACTERS_IN_ALL,
        key=lambda character: (-counts[character], character),
    )
    return _CHARACTERS_IN_ALL.union(others[: max(0, room // 2 - len(_CHARACTERS_IN_ALL))])


def _propose_tokens(word_counts: Counter[str], characters: frozenset[str], room: int) -> set[str]:
    """Return at least `room` possible tokens of a vocabulary, `characters` included."""
    size = int((room + len(SPECIAL_TOKENS)) * _OVERSHOOT)
    while True:
        proposed = _pair_encoding_tokens(word_counts, size)
        candidates = {token for token in proposed if _is_token(token, characters)}
        candidates |= characters | _TOKENS_IN_ALL
        if len(candidates) >= room:
            return candidates
        if len(proposed) < size:
            raise ValueError(
                f"vocab_size is {room + len(SPECIAL_TOKENS)}: the documents give only "
                f"{len(candidates) + len(SPECIAL_TOKENS)} tokens; give more text or lower "
                "vocab_size"
            )
        size *= 2


def _pair_encoding_tokens(word_counts: Counter[str], size: int) -> list[str]:
    """Return the first `size` tokens of byte-pair encoding, fewer if the words have no more."""
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.CharDelimiterSplit("\n")
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=size, show_progress=False)
    model.train_from_iterator(_repeat_words(word_counts), trainer)
    return list(model.get_vocab())


def _repeat_words(word_counts: Counter[str]) -> Iterator[str]:
    """Yield every word as often as it was counted, many to a string, one to a line."""
    batch: list[str] = []
    for word, count in word_counts.items():
        for start in range(0, count, _WORDS_PER_BATCH):
            batch += [word] * min(_WORDS_PER_BATCH, count - start)
            if len(batch) >= _WORDS_PER_BATCH:
                yield "\n".join(batch)
                batch = []
    yield "\n".join(batch)


def _is_token(token: str, characters: frozenset[str]) -> bool:
    return (
        len(token) <= MAX_TOKEN_CHARACTERS
        and not (len(token) > 4 and token.endswith(" "))
        and sum(map(str.isdigit, token)) < 2
        and characters.issuperset(token)
    )
