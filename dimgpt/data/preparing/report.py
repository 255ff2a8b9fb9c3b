"""A report of a source: how much it holds, what was left out, what cleaning changed, ten documents.

Processes fill a `SourceReport` block by block, and reports are merged: the result depends neither
on the order nor on how documents are grouped, and survives JSON, so that a stopped run goes on with
it. The rows are for a table; pictures are in `report_pictures.py`. Nothing is dropped here.
"""

import functools
import hashlib
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dimgpt.text.alphabet import ALPHABET, CIRCLED_DIGITS
from dimgpt.text.cleaning import normalize_text

NUM_SAMPLES = 10
_SAMPLE_CHARACTERS = 500
_BLOCK_CHARACTERS = 1 << 20
_WORDS = {"": "nothing", " ": "a space", "\n": "a new line", "\t": "a tabulation"}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportRow:
    """One source in the table of a report."""

    source: str
    group: str
    documents: int
    characters: int
    """Of the cleaned text."""
    tokens: int
    characters_per_token: float
    dropped: str
    """Documents left out, by reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CharacterRow:
    """One character that cleaning does not keep."""

    character: str
    name: str
    count: int
    becomes: str


@dataclass(kw_only=True, slots=True)
class SourceReport:
    """What is known about a source so far."""

    source: str
    group: str = ""
    seed: int = 0
    """Decides which documents are shown."""
    num_documents: int = 0
    """Documents that were kept."""
    num_characters: int = 0
    num_tokens: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Why documents were left out -> how many."""
    changed_characters: Counter[str] = field(default_factory=Counter)
    """Characters that cleaning does not keep -> how often they occurred."""
    lengths: Counter[int] = field(default_factory=Counter)
    """Kept documents of at least this many characters, and fewer than the next length there is."""
    samples: list[tuple[int, str]] = field(default_factory=list)
    """Beginnings of documents, each behind a number that decides whether it is shown."""
    notes: list[str] = field(default_factory=list)
    """What a person should know about the splits."""

    def observe(self, document: str, cleaned: str) -> None:
        """Look at a document before and after cleaning, whether it is kept or not.

        Copies that are left out later are looked at as well, and count once among the samples.
        """
        for start in range(0, len(document), _BLOCK_CHARACTERS):
            self._count_changed(document[start : start + _BLOCK_CHARACTERS])
        beginning = cleaned[:_SAMPLE_CHARACTERS]
        content = f"{self.seed} {len(cleaned)} {beginning}".encode(errors="surrogatepass")
        number = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
        if len(self.samples) < NUM_SAMPLES or number < self.samples[-1][0]:
            self._add_samples([(number, beginning)])

    def keep(self, num_characters: Sequence[int] | Any, num_tokens: Sequence[int] | Any) -> None:
        """Count documents that are kept.

        Args:
            num_characters: Characters of each one's cleaned text, at least 1.
            num_tokens: Tokens of each.
        """
        characters = np.asarray(num_characters, dtype=np.int64)
        self.num_documents += len(characters)
        self.num_characters += int(characters.sum())
        self.num_tokens += int(np.sum(num_tokens, dtype=np.int64))
        starts, counts = np.unique(_bin_starts(characters), return_counts=True)
        self.lengths.update(dict(zip(starts.tolist(), counts.tolist(), strict=True)))

    def drop(self, reason: str, count: int = 1) -> None:
        """Count documents that are left out."""
        if count:
            self.dropped[reason] += count

    def merge(self, other: "SourceReport") -> None:
        """Add what another report of the same source has seen.

        Raises:
            ValueError: It is of another source, or shows documents by another seed.
        """
        if (self.source, self.seed) != (other.source, other.seed):
            raise ValueError(
                f"the report of {other.source!r} with seed {other.seed} cannot join that of "
                f"{self.source!r} with seed {self.seed}: merge reports of one source"
            )
        self.num_documents += other.num_documents
        self.num_characters += other.num_characters
        self.num_tokens += other.num_tokens
        self.dropped.update(other.dropped)
        self.changed_characters.update(other.changed_characters)
        self.lengths.update(other.lengths)
        self._add_samples(other.samples)
        self.notes += other.notes

    def to_dict(self) -> dict[str, Any]:
        """Turn the report into plain values that JSON can hold; equal reports, equal order."""
        values = asdict(self)
        return values | {
            "dropped": dict(sorted(self.dropped.items())),
            "changed_characters": {
                f"{ord(character):04X}": count
                for character, count in sorted(self.changed_characters.items())
            },
            "lengths": {str(start): count for start, count in sorted(self.lengths.items())},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SourceReport":
        """Build a report from `to_dict`'s values.

        Raises:
            ValueError: They are no such values.
        """
        try:
            characters = values["changed_characters"].items()
            changes = {
                "dropped": Counter(values["dropped"]),
                "changed_characters": Counter({chr(int(key, 16)): n for key, n in characters}),
                "lengths": Counter({int(key): n for key, n in values["lengths"].items()}),
                "samples": [(int(number), str(text)) for number, text in values["samples"]],
            }
            return cls(**{**values, **changes})
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"these values are no report of a source ({error})") from error

    def row(self) -> ReportRow:
        """Return the row of a table that shows this source."""
        dropped = (f"{name.replace('_', ' ')} {n:,}" for name, n in sorted(self.dropped.items()))
        return ReportRow(
            source=self.source,
            group=self.group,
            documents=self.num_documents,
            characters=self.num_characters,
            tokens=self.num_tokens,
            characters_per_token=self.num_characters / max(self.num_tokens, 1),
            dropped=", ".join(dropped) or "none",
        )

    def character_rows(self, num_rows: int = 10) -> list[CharacterRow]:
        """Return the most frequent characters that cleaning does not keep, the first one first."""
        ordered = sorted(self.changed_characters.items(), key=lambda item: (-item[1], item[0]))
        return [
            CharacterRow(
                character=character if character.isprintable() else "",
                name=f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip(),
                count=count,
                becomes=_in_words(normalize_text(f"x{character}x")[1:-1]),
            )
            for character, count in ordered[:num_rows]
        ]

    def sample_texts(self) -> list[str]:
        """Return the beginnings of up to ten random documents, cleaned."""
        return [text for _, text in self.samples]

    def _count_changed(self, text: str) -> None:
        codes = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
        changed = codes[_is_changed()[codes]]
        if not len(changed):
            return
        found, counts = np.unique(changed, return_counts=True)
        for code, count in zip(found.tolist(), counts.tolist(), strict=True):
            self.changed_characters[chr(code)] += count

    def _add_samples(self, samples: list[tuple[int, str]]) -> None:
        """Keep the smallest numbers: a random choice that does not depend on the order."""
        self.samples = sorted({*self.samples, *samples})[:NUM_SAMPLES]


@functools.cache
def _is_changed() -> np.ndarray[Any, Any]:
    """Return a table of all code points: those that cleaning does not keep."""
    table = np.ones(sys.maxunicode + 1, dtype=bool)
    kept = {*ALPHABET, "\t", "\n"} - set(CIRCLED_DIGITS)
    table[list(map(ord, kept))] = False
    return table


def _in_words(text: str) -> str:
    return _WORDS.get(text, text.replace("\n", " "))


def _bin_starts(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Round down to a power of two or to one and a half of it."""
    _, exponents = np.frexp(values.astype(np.float64))
    powers = np.left_shift(np.int64(1), np.maximum(exponents - 1, 0).astype(np.int64))
    return np.where(2 * values >= 3 * powers, powers + powers // 2, powers)
