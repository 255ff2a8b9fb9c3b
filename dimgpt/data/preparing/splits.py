"""Which documents are for training, validation and test: a matter of each document's key.

Near-copies share a key, and keys are spread evenly over 0..2**64. So the borders between the splits
are shares of the documents, whatever their order and whoever reads them. A text that is too alone
for that is cut by place.
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
"""So much of a text is compared with the openings of others."""
_KEY_LETTERS = 128
# A text that ends so soon after a shared opening is a near-copy of the others.
_MIN_LETTERS_BEHIND = 32
# An opening is shared by more documents than this, and by more than this share of them.
_FEW_DOCUMENTS, _FEW = 4, 0.05
# A shorter text is not cut, and no shorter part is cut off where a tenth of the text allows more.
MIN_CUT_CHARACTERS, _HELD_OUT_CHARACTERS = 400, 2_000


def split_key(text: str, *, seed: int, openings: Sequence[str] = ()) -> int:
    """Return a number below 2**64 that texts share whose beginnings differ in little.

    Case, spaces and punctuation do not count, nor does what follows 128 letters and digits.

    Args:
        text: Cleaned; its first `OPENING_CHARACTERS` are enough.
        seed: Other seeds, other keys.
        openings: What `find_openings` found: the 128 letters after the longest one are taken.
    """
    # Twice the characters hold 128 letters and digits of any usual text.
    beginning = _letters(text[: 2 * _KEY_LETTERS])[:_KEY_LETTERS]
    if any(opening.startswith(beginning) for opening in openings):
        letters = _letters(text[:OPENING_CHARACTERS])
        skipped = max(map(len, filter(letters.startswith, openings)), default=0)
        behind = letters[skipped : skipped + _KEY_LETTERS]
        beginning = behind if len(behind) >= _MIN_LETTERS_BEHIND else beginning
    content = f"{seed} {beginning}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def find_openings(texts: Iterable[str]) -> tuple[str, ...]:
    """Return what many texts begin with (a licence, a prompt), as letters and digits only.

    An opening has 128 letters or more, and more than 4 texts and 5 % of them begin with it: fewer
    are taken for near-copies of each other.

    Args:
        texts: Cleaned, a sample of the source.
    """
    beginnings = [_letters(text[:OPENING_CHARACTERS]) for text in texts]
    few = max(_FEW_DOCUMENTS, _FEW * len(beginnings))
    return tuple(sorted(_openings(beginnings, few)))


def _openings(beginnings: Iterable[str], few: float) -> Iterator[str]:
    """Yield what more than `few` texts begin with, and what more than `few` of those go on with."""
    groups: dict[str, list[str]] = defaultdict(list)
    for letters in beginnings:
        if len(letters) >= _KEY_LETTERS:
            groups[letters[:_KEY_LETTERS]].append(letters)
    for group in groups.values():
        if len(group) > few:
            opening = os.path.commonprefix(group)
            yield opening
            for further in _openings((letters[len(opening) :] for letters in group), few):
                yield opening + further


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Borders:
    """Keys below `validation` are for validation, those from `test` on for the test."""

    validation: int
    test: int = NUM_KEYS

    @classmethod
    def of(cls, *, validation_ratio: float, test_ratio: float) -> "Borders":
        """Return the borders of shares in 0..1, whose sum is at most 1."""
        validation = min(round(validation_ratio * NUM_KEYS), NUM_KEYS - 1)
        test = NUM_KEYS - round(test_ratio * NUM_KEYS)
        return cls(validation=min(validation, test), test=test)

    @property
    def names(self) -> tuple[str, ...]:
        """The splits that are wanted."""
        return ("train", "validation", "test") if self.test < NUM_KEYS else ("train", "validation")

    def choose(self, keys: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        """Tell for each split which documents (keys uint64 (N,)) belong to it, bool (N,)."""
        is_validation = keys < np.uint64(self.validation)
        if self.test == NUM_KEYS:
            return {"train": ~is_validation, "validation": is_validation}
        is_test = ~is_validation & (keys >= np.uint64(self.test))
        return {
            "train": ~is_validation & ~is_test,
            "validation": is_validation,
            "test": is_test,
        }

    def filling(self, keys: np.ndarray[Any, Any]) -> "Borders | None":
        """Return the nearest borders that leave no split empty, given all keys, uint64 (N,).

        `None`: there are fewer different keys than splits.
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
    """Cut the last parts of a text off, one for each ratio; `None` if it is too short.

    Each part is about its ratio of the text, but at least 2,000 characters, and a tenth of the text
    at most. It begins after a line end; after a space, where no line end is near.

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
    """Return a place from `start` on, in the first half of what follows."""
    end = (start + len(text)) // 2
    for sign in "\n ":
        place = text.find(sign, start, end)
        if place >= 0:
            return place + 1
    return start
