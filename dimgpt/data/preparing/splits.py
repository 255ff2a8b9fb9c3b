"""Assigns documents to training, validation and test.

Each document has a key, which near-copies share. Keys are evenly distributed over 0..2**64. So a
border between two splits separates a fixed share of the documents, independent of their order and
of the process. If there are too few documents for that, the end of one is held out.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

NUM_KEYS = 1 << 64
OPENING_CHARACTERS = 1 << 15
"""Beginning of a text that is compared with the openings of others."""
_KEY_LETTERS = 128
_MIN_OPENING_LETTERS = 64
# A text with fewer letters after a shared opening is a near-copy of the others.
_MIN_LETTERS_BEHIND = 32
# An opening is shared by more documents than this, and by more than this ratio of them.
_FEW_DOCUMENTS, _FEW_RATIO = 4, 0.05
# A near-copy contains more than this ratio of 16 pieces of 24 letters of the other text.
_NUM_PIECES, _COPIED_LETTERS, _COPIED_RATIO = 16, 24, 0.75
MIN_CUT_CHARACTERS = 400
"""Shorter texts are not cut."""
_HELD_OUT_CHARACTERS = 2_000


def split_key(text: str, *, seed: int, openings: Sequence[str] = ()) -> int:
    """Return a number below 2**64 that texts with nearly the same beginning share.

    It is computed from the first 128 letters and digits, without case, spaces and punctuation.

    Args:
        text: Cleaned; its first `OPENING_CHARACTERS` are enough.
        seed: Another seed gives other keys.
        openings: The result of `find_openings`. A text that begins with an opening gets the key of
            the 128 letters after it.
    """
    # In any usual text, twice the characters contain 128 letters and digits.
    beginning = _letters(text[: 2 * _KEY_LETTERS])[:_KEY_LETTERS]
    if any(opening.startswith(beginning[:_MIN_OPENING_LETTERS]) for opening in openings):
        letters = _letters(text[:OPENING_CHARACTERS])
        skipped = max(map(len, filter(letters.startswith, openings)), default=0)
        behind = letters[skipped : skipped + _KEY_LETTERS]
        beginning = behind if len(behind) >= _MIN_LETTERS_BEHIND else beginning
    content = f"{seed} {beginning}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def find_openings(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the common beginnings of many texts (a licence, a prompt), as letters and digits only.

    An opening has 64 letters or more, and more than 4 texts and 5 % of them begin with it. Texts
    that are also alike after their common beginning are near-copies, and have no opening.

    Args:
        texts: Cleaned, a sample of the source.
    """
    beginnings = [_letters(text[:OPENING_CHARACTERS]) for text in texts]
    few = max(_FEW_DOCUMENTS, _FEW_RATIO * len(beginnings))
    return tuple(sorted(_openings(beginnings, few)))


def _openings(beginnings: Iterable[str], few: float) -> Iterator[str]:
    """Yield the common beginnings of more than `few` texts, and longer ones that as many share."""
    groups: dict[str, list[str]] = defaultdict(list)
    for letters in beginnings:
        if len(letters) >= _MIN_OPENING_LETTERS:
            groups[letters[:_MIN_OPENING_LETTERS]].append(letters)
    for group in groups.values():
        opening = os.path.commonprefix(group)
        rests = [letters[len(opening) :] for letters in group]
        if len(group) > few and not _are_copies(rests):
            yield opening
            for further in _openings(rests, few):
                yield opening + further


def _are_copies(rests: Sequence[str]) -> bool:
    """Return whether most texts contain most pieces of the first one."""
    first, *others = rests
    places = range(0, len(first) - _COPIED_LETTERS, len(first) // _NUM_PIECES + 1)
    pieces = [first[place : place + _COPIED_LETTERS] for place in places]
    num_copies = sum(
        sum(piece in other for piece in pieces) > _COPIED_RATIO * len(pieces) for other in others
    )
    return 2 * num_copies > len(others)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Borders:
    """Assigns keys below `validation` to the validation split, and keys from `test` on to test."""

    validation: int
    test: int = NUM_KEYS
    holds_out: bool = True
    """If false, all documents are for training."""

    @classmethod
    def of(cls, *, validation_ratio: float, test_ratio: float) -> "Borders":
        """Return the borders for shares in 0..1, whose sum is at most 1."""
        validation = min(round(validation_ratio * NUM_KEYS), NUM_KEYS - 1)
        test = NUM_KEYS - round(test_ratio * NUM_KEYS)
        return cls(validation=min(validation, test), test=test)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the splits."""
        if not self.holds_out:
            return ("train",)
        return ("train", "validation", "test") if self.test < NUM_KEYS else ("train", "validation")

    def choose(self, keys: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """Return which of the documents with these keys, uint64 (N,), each split has, bool (N,)."""
        if not self.holds_out:
            return {"train": np.ones(len(keys), dtype=bool)}
        borders = [self.validation, self.test][: len(self.names) - 1]  # 2**64 is no uint64
        numbers = np.searchsorted(np.array(borders, dtype=np.uint64), keys, side="right")
        return {
            name: numbers == number for name, number in zip(self.names, (1, 0, 2), strict=False)
        }

    def filling(self, keys: np.ndarray[Any, Any]) -> "Borders | None":
        """Return the nearest borders that leave no split empty, given all keys, uint64 (N,).

        `None` if there are fewer different keys than splits.
        """
        different = [int(key) for key in np.unique(keys)]
        if len(different) < len(self.names):
            return None
        if self.test == NUM_KEYS:
            return Borders(validation=_clip(self.validation, different[0] + 1, different[-1]))
        validation = _clip(self.validation, different[0] + 1, different[-2])
        first_of_train = next(key for key in different if key >= validation)
        test = _clip(self.test, first_of_train + 1, different[-1])
        return Borders(validation=validation, test=test)


def _clip(value: int, smallest: int, largest: int) -> int:
    return min(max(value, smallest), largest)


def cut_by_place(text: str, ratios: Sequence[float]) -> list[str] | None:
    """Cut off the last parts of a text, one for each ratio; `None` if it is too short.

    Each part is about its ratio of the text, at least 2,000 characters, and at most a tenth of the
    text. It begins after a line end, or after a space if no line end is near.

    Returns:
        The rest of the text, and the parts.
    """
    if len(text) < MIN_CUT_CHARACTERS:
        return None
    rest, parts = text, []
    for ratio in ratios:
        wanted = max(round(ratio * len(text)), _HELD_OUT_CHARACTERS)
        start = _place_to_cut(rest, len(rest) - min(wanted, len(text) // 10))
        parts.append(rest[start:])
        rest = rest[:start]
    return [rest, *parts]


def _place_to_cut(text: str, start: int) -> int:
    """Return the place after the first line end, else space, in half of `text[start:]`."""
    end = (start + len(text)) // 2
    for sign in "\n ":
        place = text.find(sign, start, end)
        if place >= 0:
            return place + 1
    return start
