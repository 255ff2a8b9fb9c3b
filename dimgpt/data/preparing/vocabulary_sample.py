"""Draws documents of the weighted mixture to train a vocabulary on, without reading all of it.

Small sources are read twice: for their size, then for the sample. The size of a large source
is estimated from its files, and only a few of them are read, chosen by the seed. Each document of a
source is equally likely, if its files are alike.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from dimgpt.config import SourceConfig
from dimgpt.data.preparing.items import read_documents, read_items, read_source
from dimgpt.data.preparing.listing import Listing, SourceFile, is_demo, is_local, list_source

# Local sources up to this size are read completely.
_SMALL_BYTES = 1 << 28
# Of a large source, at least 3 files are read, with twice the text that is needed.
_MIN_FILES, _OVERSAMPLING = 3, 2.0
# Characters per count; 300 million characters take five to ten seconds.
_COUNTED_CHARACTERS = 1 << 20


@dataclass(kw_only=True, slots=True)
class SampleCount:
    """The text that a vocabulary was trained on, counted before cleaning."""

    sources: Counter[str] = field(default_factory=Counter)
    """Source, or group of conversations -> its characters."""
    characters: Counter[str] = field(default_factory=Counter)
    """Character -> number of occurrences."""

    def watch(self, name: str, documents: Iterable[str]) -> Iterator[str]:
        """Yield the documents of a source, and count them."""
        waiting: list[str] = []
        size = 0
        for document in documents:
            waiting.append(document)
            size += len(document)
            if size >= _COUNTED_CHARACTERS:
                self._add(name, "".join(waiting))
                waiting, size = [], 0
            yield document
        self._add(name, "".join(waiting))

    def source_rows(self) -> list[dict[str, Any]]:
        """Return a row for each source: its characters, and their share of the sample."""
        total = max(self.sources.total(), 1)
        return [
            {"source": name, "characters": count, "share": count / total}
            for name, count in self.sources.items()
        ]

    def named_characters(self) -> list[str]:
        """Return every character with its count, the most frequent first.

        Blank and unprintable characters are named by their codes.
        """
        ordered = sorted(self.characters.items(), key=lambda item: (-item[1], item[0]))
        return [f"{_name(character)} {count:,}" for character, count in ordered]

    def _add(self, name: str, text: str) -> None:
        self.sources[name] += len(text)
        codes = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
        counts = np.bincount(codes)
        found = np.flatnonzero(counts)
        characters = map(chr, found.tolist())
        self.characters.update(dict(zip(characters, counts[found].tolist(), strict=True)))


def _name(character: str) -> str:
    is_visible = character.isprintable() and not character.isspace()
    return character if is_visible else f"U+{ord(character):04X}"


def sample_mixture(
    sources: Sequence[SourceConfig],
    *,
    num_characters: int,
    seed: int,
    skip_bad: bool = False,
    folder: Path | None = None,
    count: SampleCount | None = None,
) -> Iterator[str]:
    """Draw documents from the weighted mixture, about `num_characters` in all.

    Each source contributes in proportion to its size times its multiplier, so a document can be
    drawn several times. If there are too few texts for `num_characters`, the sources with the
    smallest multiplier are drawn once completely, the others in proportion to their multipliers.
    `folder` holds one downloaded file at a time; `None` is the system's temporary folder. `count`
    counts the drawn documents.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: A source is empty or damaged.
    """
    listings = [list_source(source) for source in sources]
    weighted_size = sum(
        _num_characters(source, listing, seed=seed, skip_bad=skip_bad) * source.multiplier
        for source, listing in zip(sources, listings, strict=True)
    )
    smallest = min((source.multiplier for source in sources), default=1)
    scale = min(num_characters / max(weighted_size, 1), 1 / smallest)
    for source, listing in zip(sources, listings, strict=True):
        files, copies = listing.files, scale * source.multiplier
        generator = Random(f"{seed} {source.name}")
        if not _is_small(source, listing):
            files = _choose(listing, copies, generator)
            copies *= listing.num_bytes / max(sum(file.num_bytes for file in files), 1)
        documents = _read(source, files, folder, seed=seed, skip_bad=skip_bad)
        drawn = _repeat(documents, copies, generator)
        yield from drawn if count is None else count.watch(source.name, drawn)


def _repeat(documents: Iterable[str], copies: float, generator: Random) -> Iterator[str]:
    """Yield each document `copies` times, on average."""
    for document in documents:
        for _ in range(int(copies + generator.random())):
            yield document


def _is_small(source: SourceConfig, listing: Listing) -> bool:
    return is_demo(source.path) or (is_local(source.path) and listing.num_bytes <= _SMALL_BYTES)


def _num_characters(source: SourceConfig, listing: Listing, *, seed: int, skip_bad: bool) -> int:
    if _is_small(source, listing):
        return sum(map(len, read_documents(source, seed=seed, skip_bad=skip_bad)))
    return listing.text_bytes


def _read(
    source: SourceConfig,
    files: Sequence[SourceFile],
    folder: Path | None,
    *,
    seed: int,
    skip_bad: bool,
) -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=folder, prefix="sample-") as name:
        blocks = read_source(source, files, folder=Path(name), seed=seed, skip_bad=skip_bad)
        documents = (
            item for block in blocks for item in read_items(block, source, skip_bad=skip_bad)
        )
        yield from (item for item in documents if isinstance(item, str))


def _choose(listing: Listing, copies: float, generator: Random) -> tuple[SourceFile, ...]:
    """Choose random files, enough for a sample of `copies` times the source; keep their order."""
    shuffled = generator.sample(listing.files, len(listing.files))
    wanted = min(1.0, copies * _OVERSAMPLING) * listing.num_bytes
    chosen: set[str] = set()
    num_bytes = 0
    while shuffled and (len(chosen) < _MIN_FILES or num_bytes < wanted):
        file = shuffled.pop()
        chosen.add(file.name)
        num_bytes += file.num_bytes
    return tuple(file for file in listing.files if file.name in chosen)
