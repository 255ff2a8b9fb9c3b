"""Shares: what of a source is one of N runs' to do, on one machine or on many.

Whole shards in turn where there are enough, else blocks in turn. A source that is one part goes to
one run as a whole. Which run does what depends on nothing but the files and N.
"""

from dataclasses import dataclass
from zlib import crc32


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Run `index` of `count`, counted from 1."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(
                f"shard is {self.index}/{self.count}: it must be I/N with I from 1 to N"
            )

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Read `I/N`.

        Raises:
            ValueError: It is no such text, or I does not lie in 1..N.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal()):
            raise ValueError(f"shard is {text!r}: it must be I/N, such as 1/8 for the first of 8")
        return cls(index=int(index), count=int(count))

    def takes_source(self, name: str) -> bool:
        """Tell whether a source that is not divided is this run's."""
        return crc32(name.encode()) % self.count == self.index - 1

    def takes(self, *, shard: int, num_shards: int, block: int) -> bool:
        """Tell whether a block of a divided source is this run's."""
        number = shard if num_shards >= self.count else block
        return number % self.count == self.index - 1

    def takes_any(self, *, shard: int, num_shards: int) -> bool:
        """Tell whether any block of a shard may be this run's."""
        return num_shards < self.count or self.takes(shard=shard, num_shards=num_shards, block=0)
