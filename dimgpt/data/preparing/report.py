"""Reports on a source: its size, what was dropped, what cleaning changed, ten documents.

Each process fills a `SourceReport` for its blocks, and the reports are merged. The result depends
neither on the order nor on the blocks. Reports are stored as JSON, so that a resumed run keeps its
counts. `display` shows them as tables and pictures.
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


@dataclass(kw_only=True, slots=True)
class SourceReport:
    """Counts and samples of a source, as far as it has been read."""

    source: str
    group: str = ""
    seed: int = 0
    """Selects the documents of the samples."""
    num_documents: int = 0
    """Kept documents."""
    num_characters: int = 0
    num_tokens: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Number of dropped documents by reason."""
    changed_characters: Counter[str] = field(default_factory=Counter)
    """Characters that cleaning replaces or removes -> number of occurrences."""
    lengths: Counter[int] = field(default_factory=Counter)
    """Histogram of kept documents: smallest number of characters of a bin -> documents in it."""
    samples: list[tuple[int, str]] = field(default_factory=list)
    """Beginnings of documents with a random number each; the smallest numbers are kept."""
    notes: list[str] = field(default_factory=list)
    """Further sentences for the user, such as "3 hidden files were left out"."""

    def observe(self, document: str, cleaned: str) -> None:
        """Count what cleaning changed in a document, and perhaps take it as a sample.

        Call it also for copies that are dropped later: equal documents are one sample.
        """
        for start in range(0, len(document), _BLOCK_CHARACTERS):
            self._count_changed(document[start : start + _BLOCK_CHARACTERS])
        beginning = cleaned[:_SAMPLE_CHARACTERS]
        content = f"{self.seed} {len(cleaned)} {beginning}".encode(errors="surrogatepass")
        number = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
        if len(self.samples) < NUM_SAMPLES or number < self.samples[-1][0]:
            self._add_samples([(number, beginning)])

    def keep(self, num_characters: Sequence[int] | Any, num_tokens: Sequence[int] | Any) -> None:
        """Count kept documents, given the characters (at least 1) and tokens of each."""
        characters = np.asarray(num_characters, dtype=np.int64)
        self.num_documents += len(characters)
        self.num_characters += int(characters.sum())
        self.num_tokens += int(np.sum(num_tokens, dtype=np.int64))
        starts, counts = np.unique(_bin_starts(characters), return_counts=True)
        self.lengths.update(dict(zip(starts.tolist(), counts.tolist(), strict=True)))

    def drop(self, reason: str, count: int = 1) -> None:
        """Count dropped documents."""
        if count:
            self.dropped[reason] += count

    def merge(self, other: "SourceReport") -> None:
        """Add another report on the same source.

        Raises:
            ValueError: It has another source or seed.
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
        self.notes = sorted({*self.notes, *other.notes})

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; equal reports give equal text."""
        return asdict(self) | {
            "dropped": dict(sorted(self.dropped.items())),
            "changed_characters": {
                f"{ord(character):04X}": count
                for character, count in sorted(self.changed_characters.items())
            },
            "lengths": {str(start): count for start, count in sorted(self.lengths.items())},
            "notes": sorted(set(self.notes)),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SourceReport":
        """Build a report from `to_dict`'s values; reports of older versions have no notes.

        Raises:
            ValueError: The values are no report.
        """
        try:
            characters = values["changed_characters"].items()
            changes = {
                "dropped": Counter(values["dropped"]),
                "changed_characters": Counter({chr(int(key, 16)): n for key, n in characters}),
                "lengths": Counter({int(key): n for key, n in values["lengths"].items()}),
                "samples": [(int(number), str(text)) for number, text in values["samples"]],
                "notes": [str(note) for note in values.get("notes", [])],
            }
            return cls(**{**values, **changes})
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"these values are not a report on a source ({error})") from error

    def row(self) -> dict[str, Any]:
        """Return this source's row of a table, without the notes, which are too long."""
        dropped = (f"{name.replace('_', ' ')} {n:,}" for name, n in sorted(self.dropped.items()))
        return {
            "source": self.source,
            "group": self.group,
            "documents": self.num_documents,
            "characters": self.num_characters,
            "tokens": self.num_tokens,
            "characters per token": self.num_characters / max(self.num_tokens, 1),
            "dropped": ", ".join(dropped) or "none",
        }

    def character_rows(self, num_rows: int = 10) -> list[dict[str, Any]]:
        """Return a row for each of the most frequent characters that cleaning changes."""
        ordered = sorted(self.changed_characters.items(), key=lambda item: (-item[1], item[0]))
        return [
            {
                "character": character if character.isprintable() else "",
                "name": f"U+{ord(character):04X} {unicodedata.name(character, '')}".strip(),
                "count": count,
                "becomes": _becomes(character),
            }
            for character, count in ordered[:num_rows]
        ]

    def sample_texts(self) -> list[str]:
        """Return the beginnings of up to ten random documents, cleaned."""
        return [text for _, text in self.samples]

    def _count_changed(self, text: str) -> None:
        codes = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
        changed = codes[_is_changed()[codes]]
        if len(changed):  # rare, and `unique` is slower than the rest
            found, counts = np.unique(changed, return_counts=True)
            characters = map(chr, found.tolist())
            self.changed_characters.update(dict(zip(characters, counts.tolist(), strict=True)))

    def _add_samples(self, samples: list[tuple[int, str]]) -> None:
        """Keep the samples with the smallest numbers; their order does not matter."""
        self.samples = sorted({*self.samples, *samples})[:NUM_SAMPLES]


@functools.cache
def _is_changed() -> np.ndarray[Any, Any]:
    """Return a table of all code points: true for those that cleaning changes."""
    table = np.ones(sys.maxunicode + 1, dtype=bool)
    kept = {*ALPHABET, "\t", "\n"} - set(CIRCLED_DIGITS)
    table[list(map(ord, kept))] = False
    return table


def _becomes(character: str) -> str:
    text = normalize_text(f"x{character}x")[1:-1]
    return _WORDS.get(text, text.replace("\n", " "))


def _bin_starts(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Round down to a power of two or to one and a half of it."""
    _, exponents = np.frexp(values.astype(np.float64))
    powers = np.left_shift(np.int64(1), np.maximum(exponents - 1, 0).astype(np.int64))
    return np.where(2 * values >= 3 * powers, powers + powers // 2, powers)
