"""Which documents are for training, validation and test: a matter of each document's key.

Keys are spread evenly over 0..2**64, so borders between the splits are shares of the documents,
whatever their order and whoever reads them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

NUM_KEYS = 1 << 64


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

    def splits_as(self, other: "Borders", keys: "KeyRange") -> bool:
        """Tell whether documents with keys of a range surely fall alike under other borders."""
        moved = [(self.validation, other.validation), (self.test, other.test)]
        return not any(
            min(pair) <= keys.largest and keys.smallest < max(pair)
            for pair in moved
            if pair[0] != pair[1]
        )

    def without_empty(self, filled: Iterable[str], keys: "KeyRange") -> "Borders":
        """Return borders that leave no split empty, where so few documents allow it.

        Args:
            filled: Splits that hold something under these borders.
            keys: Of all documents.
        """
        empty = set(self.names) - set(filled)
        if not empty:
            return self
        if "test" not in self.names:
            border = keys.smallest + 1 if "validation" in empty else keys.largest
            return Borders(validation=border)
        if "train" in empty:
            return Borders(validation=keys.smallest + 1, test=keys.largest)
        return Borders(
            validation=keys.smallest + 1 if "validation" in empty else self.validation,
            test=keys.largest if "test" in empty else self.test,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyRange:
    """The smallest and the largest key of some documents; of none, the first exceeds the second."""

    smallest: int = NUM_KEYS
    largest: int = -1

    def joined(self, other: "KeyRange") -> "KeyRange":
        """Return the range of both."""
        return KeyRange(
            smallest=min(self.smallest, other.smallest), largest=max(self.largest, other.largest)
        )

    @classmethod
    def of(cls, keys: np.ndarray[Any, Any]) -> "KeyRange":
        """Return the range of keys, uint64 (N,)."""
        if not len(keys):
            return cls()
        return cls(smallest=int(keys.min()), largest=int(keys.max()))
