"""Documents of the weighted mixture, to train a vocabulary on, without reading all of it.

What is small is read whole, twice: for its size, then for the sample. Of a large source, whose size
is estimated from its files, a few files are read, chosen by the seed; each of its documents has the
same chance, as far as its files are alike.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from dimgpt.config import SourceConfig
from dimgpt.data.preparing.blocks import read_blocks
from dimgpt.data.preparing.disk import estimate_text_bytes
from dimgpt.data.preparing.items import ItemRules, read_documents, read_documents_of
from dimgpt.data.preparing.listing import (
    TEXT_SUFFIXES,
    Listing,
    Location,
    SourceFile,
    is_demo,
    is_local,
    list_source,
)

_SMALL_BYTES = 1 << 28
# A source is judged by this many of its files at least, and by this many times the text it gives.
_MIN_FILES, _OVERSAMPLING = 3, 2.0


def sample_mixture(
    sources: Sequence[SourceConfig],
    *,
    num_characters: int,
    seed: int,
    skip_bad: bool = False,
    folder: Path | None = None,
    small_bytes: int = _SMALL_BYTES,
) -> Iterator[str]:
    """Draw documents from the weighted mixture.

    A document occurs in proportion to its source's multiplier, several times if that asks for it. A
    mixture smaller than `num_characters` gives all its documents, those of the smallest multiplier
    once.

    Args:
        sources: With their multipliers.
        num_characters: About how many characters to draw.
        seed: Decides which.
        skip_bad: Skip records that cannot be used.
        folder: Holds a file that is fetched, meanwhile; `None` is the system's temporary one.
        small_bytes: Local sources with files up to this size are read whole.

    Raises:
        FileNotFoundError: A path does not exist.
        ValueError: A source is empty or damaged.
    """
    samplers = [
        _Sampler.of(source, seed=seed, skip_bad=skip_bad, small_bytes=small_bytes)
        for source in sources
    ]
    multipliers = [source.multiplier for source in sources]
    weighted_size = sum(
        sampler.size * multiplier for sampler, multiplier in zip(samplers, multipliers, strict=True)
    )
    scale = min(num_characters / max(weighted_size, 1), 1 / min(multipliers, default=1))
    for sampler, multiplier in zip(samplers, multipliers, strict=True):
        yield from sampler.draw(scale * multiplier, folder)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sampler:
    """Draws documents of one source."""

    source: SourceConfig
    size: int
    """Characters, exact or about."""
    listing: Listing | None
    """Files to choose from; `None`: all are read."""
    seed: int
    skip_bad: bool

    @classmethod
    def of(cls, source: SourceConfig, *, seed: int, skip_bad: bool, small_bytes: int) -> "_Sampler":
        """Find out how large a source is."""
        if not is_demo(source.path):
            listing = list_source(Location.of(source), suffixes=TEXT_SUFFIXES)
            if not is_local(source.path) or listing.num_bytes > small_bytes:
                size = estimate_text_bytes(source, listing)
                return cls(source=source, size=size, listing=listing, seed=seed, skip_bad=skip_bad)
        size = sum(map(len, read_documents(source, seed=seed, skip_bad=skip_bad)))
        return cls(source=source, size=size, listing=None, seed=seed, skip_bad=skip_bad)

    def draw(self, copies: float, folder: Path | None) -> Iterator[str]:
        """Yield each document `copies` times on average, or each of some files more often."""
        generator = Random(f"{self.seed} {self.source.name}")
        if self.listing is None:
            documents = read_documents(self.source, seed=self.seed, skip_bad=self.skip_bad)
        else:
            files = _choose(self.listing, copies, generator)
            copies *= self.listing.num_bytes / max(sum(file.num_bytes for file in files), 1)
            documents = self._read(files, folder)
        for document in documents:
            for _ in range(int(copies + generator.random())):
                yield document

    def _read(self, files: Sequence[SourceFile], folder: Path | None) -> Iterator[str]:
        rules = ItemRules(source=self.source, skip_bad=self.skip_bad)
        with tempfile.TemporaryDirectory(dir=folder, prefix="sample-") as name:
            for block in read_blocks(
                files,
                columns=rules.columns,
                folder=Path(name),
                seed=self.seed,
                skip_bad=self.skip_bad,
            ):
                for item in read_documents_of(block, rules):
                    if isinstance(item, str):
                        yield item


def _choose(listing: Listing, copies: float, generator: Random) -> list[SourceFile]:
    """Choose files at random, enough for a sample of `copies` of the whole, in their order."""
    shuffled = generator.sample(listing.files, len(listing.files))
    wanted = min(1.0, copies * _OVERSAMPLING) * listing.num_bytes
    chosen: list[SourceFile] = []
    while shuffled and (
        len(chosen) < _MIN_FILES or sum(file.num_bytes for file in chosen) < wanted
    ):
        chosen.append(shuffled.pop())
    names = {file.name for file in chosen}
    return [file for file in listing.files if file.name in names]
