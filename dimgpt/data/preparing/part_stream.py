"""Blocks of a source in, parts out: what is not written yet, in its order.

The parent cuts, decides on copies, writes; parsing, filters, cleaning and encoding are the
workers'. Where a part ends depends on the blocks alone, so a run that goes on makes the parts that
an uninterrupted one makes.
"""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dimgpt.data.conversations.conversation import Conversation, Message
from dimgpt.data.manifest import SYSTEM_PROMPTS
from dimgpt.data.preparing.blocks import Block
from dimgpt.data.preparing.disk import free_bytes
from dimgpt.data.preparing.encoding import EncodedChunk, EncodingRules, encode_chunk
from dimgpt.data.preparing.items import ItemRules, read_documents_of, read_system_prompts_of
from dimgpt.data.preparing.jobs import Job
from dimgpt.data.preparing.part_writer import Mark, PartWriter
from dimgpt.data.preparing.parts import Part, PartsFolder, Position
from dimgpt.data.preparing.progress import Progress
from dimgpt.data.preparing.quality import Deduplicator
from dimgpt.data.preparing.shares import Share
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.workers import map_in_order

_COUNTS = ("num_documents", "num_characters", "text_bytes", "file_bytes")


def write_missing_parts(
    job: Job,
    folder: PartsFolder,
    *,
    progress: Callable[[Progress], None] | None = None,
    share: Share | None = None,
) -> list[Part]:
    """Write the parts that a folder lacks, and return all of them in their order.

    Args:
        job: What there is to do.
        folder: Gets the parts.
        progress: Watches.
        share: Leave out the blocks of others.

    Raises:
        ValueError: A file is damaged, or a record cannot be used.
        OSError: The disk is full.
        RuntimeError: A process died.
    """
    start = Position(0, 0) if share is not None and share.index > 1 else job.start
    while True:
        parts = list(folder.parts_from(start))
        writing = _Writing(job, folder, parts, progress=progress, share=share)
        end = parts[-1].end if parts else start
        if end.shard < 0:
            writing.write_prompts(end)
        elif not writing.write_from(end):
            return list(folder.parts_from(start))


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockEncoder:
    """What a worker does to a block."""

    tokenizer: Tokenizer
    items: ItemRules
    rules: EncodingRules

    def __call__(self, block: Block) -> EncodedChunk:
        """Parse, filter, clean and encode."""
        return encode_chunk(read_documents_of(block, self.items), self.tokenizer, self.rules)


class _Writing:
    """Writes parts from a place on, until the source ends or a finished part follows."""

    def __init__(
        self,
        job: Job,
        folder: PartsFolder,
        before: list[Part],
        *,
        progress: Callable[[Progress], None] | None,
        share: Share | None,
    ) -> None:
        """Go on after the finished parts `before`."""
        self.job = job
        self.folder = folder
        self.before = before
        self.share = share
        self.progress = progress
        self._done: Counter[str] = Counter()
        for part in before:
            self._add(part)

    def write_prompts(self, start: Position) -> None:
        """Write the system prompts, as a part before the first shard."""
        job = self.job
        prompts = [
            Conversation(messages=(Message(role="system", text=prompt),))
            for prompt in read_system_prompts_of(job.read_prompts(self.folder.downloads), job.items)
        ]
        chunk = encode_chunk(prompts, job.tokenizer, job.encoding)
        if not len(chunk.lengths):
            raise ValueError(
                f"the system prompts of {job.source.name!r} are none; check system_prompts_path"
            )
        mark = Mark(end=Position(0, 0), text_bytes=0, file_bytes=0)
        with self._part(0, start, None) as writer:
            writer.write_whole(SYSTEM_PROMPTS, chunk, mark)

    def write_from(self, start: Position) -> bool:
        """Write parts; tell whether it stopped before a finished part, and there may be more."""
        job, number = self.job, len(self.before)
        deduplicator = self._deduplicator()
        work = BlockEncoder(tokenizer=job.tokenizer, items=job.items, rules=job.encoding)
        encoded = map_in_order(work, self._blocks_from(start), num_workers=job.config.num_workers)
        with contextlib.closing(encoded) as chunks:
            for mark, chunk in chunks:
                with self._part(number, start, deduplicator) as writer:
                    self._write(writer, chunk, mark)
                    while not mark.ends_shard and writer.text_bytes < job.sizes.part_bytes:
                        mark, chunk = next(chunks)
                        self._write(writer, chunk, mark)
                self._add(next(self.folder.parts_from(start)))
                number, start = number + 1, mark.end
                if self.folder.holds(start):
                    return True
        return False

    def _part(self, number: int, start: Position, deduplicator: Deduplicator | None) -> PartWriter:
        return PartWriter(
            self.folder,
            number=number,
            start=start,
            seed=self.job.config.seed,
            deduplicator=deduplicator,
        )

    def _write(self, writer: PartWriter, chunk: EncodedChunk, mark: Mark) -> None:
        writer.write(chunk, mark)
        if self.progress is not None:
            self.progress(self._describe(writer))

    def _add(self, done: Part | PartWriter) -> None:
        """Count what is finished."""
        for name in _COUNTS:
            self._done[name] += getattr(done, name)

    def _describe(self, writer: PartWriter) -> Progress:
        counts = {name: self._done[name] + getattr(writer, name) for name in _COUNTS}
        return Progress(
            source=self.job.source.name,
            total_file_bytes=self.job.listing.num_bytes,
            disk_free=free_bytes(self.folder.path),
            **counts,
        )

    def _deduplicator(self) -> Deduplicator | None:
        """Return what knows the documents of the parts before."""
        if not self.job.is_deduplicated:
            return None
        deduplicator = Deduplicator(self.job.encoding.quality)
        for part in self.before:
            keys = self.folder.read_copy_keys(part)
            if keys is not None:
                deduplicator.add(keys)
        return deduplicator

    def _blocks_from(self, start: Position) -> Iterator[tuple[Mark, Block]]:
        num_shards = len(self.job.shards)
        for shard in range(start.shard, num_shards):
            if self.share and not self.share.takes_any(shard=shard, num_shards=num_shards):
                continue
            first = start.block if shard == start.shard else 0
            blocks = self._own_blocks(shard, num_shards)
            yield from _marked(((n, block) for n, block in blocks if n >= first), shard)

    def _own_blocks(self, shard: int, num_shards: int) -> Iterator[tuple[int, Block]]:
        share = self.share
        for number, block in enumerate(self.job.read(shard, self.folder.downloads)):
            if share is None or share.takes(shard=shard, num_shards=num_shards, block=number):
                yield number, block


def _marked(blocks: Iterator[tuple[int, Block]], shard: int) -> Iterator[tuple[Mark, Block]]:
    """Say for each block where the next one starts; after the last, in another shard."""
    current = next(blocks, None)
    while current is not None:
        following = next(blocks, None)
        number, block = current
        end = Position(shard + 1, 0) if following is None else Position(shard, number + 1)
        yield Mark(end=end, text_bytes=block.num_bytes, file_bytes=block.file_bytes), block
        current = following
