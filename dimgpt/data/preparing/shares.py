"""Shares: the parts of a source that one of N runs writes, on one machine or on many.

Shares take whole shards in turn if there are enough of them, else parts in turn. A source that is
about one part goes to one share. A run without shares is share 1 of 1. What a part holds does not
depend on the number of shares.

The parent process cuts, drops copies and writes; parsing, filters, cleaning and encoding are done
by workers.
"""

import contextlib
import functools
import re
import shutil
from collections import Counter, deque
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from zlib import crc32

from dimgpt.data.preparing.blocks import Block
from dimgpt.data.preparing.encoding import EncodedChunk, encode_block
from dimgpt.data.preparing.part_writer import PartWriter, Piece
from dimgpt.data.preparing.parts import Part, PartsFolder, Place, open_folder
from dimgpt.data.preparing.plan import Plan
from dimgpt.data.preparing.quality import Deduplicator
from dimgpt.files import lock_file
from dimgpt.workers import map_in_order

_LOCK = re.compile(r"share-(\d+)-of-(\d+)\.lock")


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far the preparation of a source is."""

    source: str
    """Its name."""
    num_documents: int
    """Documents encoded so far, those of finished parts included."""
    text_bytes: int
    """Bytes of text that were read so far."""
    file_bytes: int
    """Bytes of its files, compressed as they are, that were read so far."""
    total_file_bytes: int
    """Bytes of all its files; 0 if that is not known."""
    disk_free: int
    """Bytes left on the disk."""


Watch = Callable[[Progress], None]
"""Called with every block that is encoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Run `index` of `count`, counted from 1."""

    index: int = 1
    count: int = 1

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

    def takes(self, plan: Plan, place: Place) -> bool:
        """Tell whether a part is this run's to write."""
        return self == Share.of(plan, place, self.count)

    @classmethod
    def of(cls, plan: Plan, place: Place, count: int) -> "Share":
        """Return which of `count` shares writes a part."""
        if not plan.is_divided:
            number = crc32(plan.source.name.encode())
        elif len(plan.shards) >= count:
            number = place.shard
        else:
            number = place.shard + place.number
        return cls(index=number % count + 1, count=count)


ALONE = Share()
"""The run that writes everything."""


@contextlib.contextmanager
def hold(plan: Plan, share: Share) -> Iterator[None]:
    """Keep other runs away from the parts of a share.

    Shares of the same count have different parts; those of another count may have the same.

    Raises:
        RuntimeError: This share is being written, or one of another count.
    """
    with _lock(plan, share):
        for other in begun_shares(plan):
            if other.count != share.count:
                with _lock(plan, other):
                    pass
        yield


def _lock(plan: Plan, share: Share) -> AbstractContextManager[None]:
    return lock_file(
        plan.folder / f"share-{share.index}-of-{share.count}.lock",
        refusal=f"another run writes share {share.index} of {share.count} of {plan.source.name}: "
        "wait until it ends, or stop it",
    )


def begun_shares(plan: Plan) -> list[Share]:
    """Return the shares that were begun in a source's folder: each leaves a lock file there."""
    found = [_LOCK.fullmatch(path.name) for path in sorted(plan.folder.glob("share-*"))]
    return [Share(index=int(match[1]), count=int(match[2])) for match in found if match]


def write_parts(plan: Plan, share: Share, *, progress: Watch | None = None) -> dict[Place, Part]:
    """Write the parts of a share that are not there, and return all parts of the share.

    Raises:
        ValueError: A file is damaged, a record cannot be used, or the folder has another plan.
        OSError: The disk is full.
        RuntimeError: A process died.
    """
    # Each share has a folder for the file that it fetches: nobody else deletes anything there.
    suffix = "" if share == ALONE else f"-{share.index}-of-{share.count}"
    downloads = plan.folder / f"downloads{suffix}"
    folder = open_folder(plan, downloads, is_shared=share != ALONE)
    parts = folder.load(lambda place: share.takes(plan, place))
    encode = functools.partial(
        encode_block,
        source=plan.source,
        tokenizer=plan.tokenizer,
        config=plan.config,
        openings=folder.openings,
    )
    blocks = _missing_blocks(folder, share, frozenset(parts), downloads)
    encoded = map_in_order(encode, blocks, num_workers=plan.config.num_workers)
    with contextlib.closing(encoded) as chunks:
        _write_chunks(folder, parts, chunks, progress)
    return {place: parts[place] for place in sorted(parts)}


def _write_chunks(
    folder: PartsFolder,
    parts: dict[Place, Part],
    chunks: Iterator[tuple[Piece, EncodedChunk]],
    progress: Watch | None,
) -> None:
    """Write chunks into their parts, and add those to `parts`."""
    plan = folder.plan
    earlier = deque(place for place, part in parts.items() if part.copy_keys_sha256)
    done = sum((Counter(part.counts) for part in parts.values()), Counter[str]())
    deduplicator = Deduplicator(plan.config.quality) if plan.is_deduplicated else None

    def watch(counts: Counter[str]) -> None:
        if progress is not None:
            total = done + counts
            record = Progress(
                source=plan.source.name,
                num_documents=total["num_documents"],
                text_bytes=total["text_bytes"],
                file_bytes=total["file_bytes"],
                total_file_bytes=plan.listing.num_bytes,
                disk_free=shutil.disk_usage(plan.folder).free,
            )
            progress(record)

    for piece, chunk in chunks:
        while deduplicator is not None and earlier and earlier[0] < piece.place:
            deduplicator.add(folder.read_copy_keys(earlier.popleft()))
        writer = PartWriter(folder, piece.place, deduplicator)
        part = writer.write(_one_part(piece, chunk, chunks), progress=watch)
        parts[piece.place] = part
        done.update(part.counts)


def _one_part(
    piece: Piece, chunk: EncodedChunk, following: Iterator[tuple[Piece, EncodedChunk]]
) -> Iterator[tuple[Piece, EncodedChunk]]:
    """Yield chunks up to the last one of a part, without waiting for the next part's."""
    yield piece, chunk
    while not piece.ends_part:
        piece, chunk = next(following)
        yield piece, chunk


def _missing_blocks(
    folder: PartsFolder, share: Share, there: Container[Place], downloads: Path
) -> Iterator[tuple[Piece, Block]]:
    """Yield the blocks of the parts of a share that are not there.

    A shard is read to its end even if its last parts are there, unless it is known that they are
    its last.
    """
    plan = folder.plan
    for shard in range(len(plan.shards)):
        known = folder.num_parts(shard)
        places = (Place(shard, number) for number in range(share.count if known is None else known))
        own = [place for place in places if share.takes(plan, place)]
        if not own or (known is not None and all(place in there for place in own)):
            continue
        num_parts = 0
        blocks = chain(plan.read(shard, downloads), [None])
        for index, (block, following) in enumerate(pairwise(blocks)):
            assert block is not None
            place = Place(shard, index // plan.part_blocks)
            num_parts = place.number + 1
            if share.takes(plan, place) and place not in there:
                ends_part = following is None or (index + 1) % plan.part_blocks == 0
                yield Piece(place, ends_part, block.num_bytes, block.file_bytes), block
        folder.set_num_parts(shard, num_parts)
