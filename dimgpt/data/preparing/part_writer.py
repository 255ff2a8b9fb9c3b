"""Writes the missing parts of a source: encoded chunks go to the token files of their splits.

The parent process cuts files, drops copies and writes. Workers parse, filter, clean and encode.

The first part of a source fills every split. Its documents stay in memory until each split has one.
If the part ends before that, the borders between the splits are moved, for this part only. If it
has fewer different documents than splits, the end of the longest one is held out.
"""

import contextlib
import dataclasses
import functools
from collections import Counter, deque
from collections.abc import Iterator
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np

from dimgpt.config import QualityConfig, SourceConfig
from dimgpt.data.conversation import Conversation, Message
from dimgpt.data.preparing.blocks import Block, read_blocks
from dimgpt.data.preparing.encoding import EncodedChunk, encode_block, encode_chunk
from dimgpt.data.preparing.items import read_system_prompts
from dimgpt.data.preparing.listing import Listing
from dimgpt.data.preparing.parts import Part, Parts, Watch
from dimgpt.data.preparing.plan import Place
from dimgpt.data.preparing.quality import Deduplicator
from dimgpt.data.preparing.report import SourceReport
from dimgpt.data.preparing.splits import MIN_CUT_CHARACTERS, cut_by_place
from dimgpt.data.token_file import SYSTEM_PROMPTS
from dimgpt.data.token_writer import TokenFileWriter
from dimgpt.settings import override
from dimgpt.workers import map_in_order

FIRST = Place(0, 0)
"""The part that fills every split, and holds the system prompts of a group of conversations."""
_NO_RECORDS = Block(kind="items", name="", content=())


class _Piece(NamedTuple):
    """What the parent remembers of a block while a worker encodes it."""

    place: Place
    ends_part: bool
    ends_shard: bool
    text_bytes: int
    file_bytes: int


def write_missing_parts(parts: Parts, *, progress: Watch | None = None) -> None:
    """Write the missing parts of a share, and add them to `parts`.

    Raises:
        ValueError: A file is damaged, or a record cannot be used.
        OSError: The disk is full.
        RuntimeError: A process died.
    """
    plan = parts.plan
    encode = functools.partial(
        encode_block,
        source=plan.source,
        tokenizer=plan.tokenizer,
        config=plan.config,
        openings=parts.openings,
    )
    deduplicator = Deduplicator(plan.config.quality) if plan.is_deduplicated else None
    earlier = deque(place for place, part in parts.done.items() if part.copy_keys_sha256)
    encoded = map_in_order(encode, _missing_blocks(parts), num_workers=plan.config.num_workers)
    writer = None
    with contextlib.closing(encoded) as chunks, contextlib.ExitStack() as files:
        for piece, chunk in chunks:
            while deduplicator is not None and earlier and earlier[0] < piece.place:
                deduplicator.add(parts.read_copy_keys(earlier.popleft()))
            writer = writer or _PartWriter(parts, piece.place, deduplicator, files)
            writer.add(piece, chunk)
            if progress is not None:
                progress(parts.progress(writer.counts))
            if piece.ends_part:
                writer.finish(is_last=piece.ends_shard)
                writer = None


def _missing_blocks(parts: Parts) -> Iterator[tuple[_Piece, Block]]:
    """Yield the blocks of a share's missing parts; a shard that lacks one is read to its end."""
    plan, share = parts.plan, parts.share
    assert share is not None
    for shard in filter(parts.lacks_own, range(len(plan.shards))):
        blocks = plan.read(shard, parts.downloads)
        first = next(blocks, _NO_RECORDS)
        for index, (block, following) in enumerate(pairwise(chain([first], blocks, [None]))):
            assert block is not None
            place = Place(shard, index // plan.part_blocks)
            ends_part = following is None or (index + 1) % plan.part_blocks == 0
            if share.takes(plan, place) and place not in parts.done:
                yield (
                    _Piece(place, ends_part, following is None, block.num_bytes, block.file_bytes),
                    block,
                )


class _PartWriter:
    """Writes one part: first its files, then the record that makes them valid."""

    def __init__(
        self,
        parts: Parts,
        place: Place,
        deduplicator: Deduplicator | None,
        files: contextlib.ExitStack,
    ) -> None:
        """Begin a part; an error that leaves `files` removes what was written."""
        self.counts: Counter[str] = Counter()
        """`Part.counts` so far."""
        self._parts = parts
        self._plan = plan = parts.plan
        self._place = place
        self._deduplicator = deduplicator
        self._borders = plan.borders
        self._report = SourceReport(source="", seed=plan.config.seed)
        self._copy_keys: list[np.ndarray[Any, Any]] = []
        self._held: list[EncodedChunk] | None = [] if place == FIRST else None
        self._filled: set[str] = set()
        self._files = files
        self._writers: dict[str, TokenFileWriter] = {}

    def finish(self, *, is_last: bool) -> None:
        """Write the documents in memory, and the record.

        Raises:
            OSError: The disk is full or cannot be written.
        """
        if self._held is not None:
            self._fill_splits(self._held)
        if self._place == FIRST and self._plan.prompts is not None:
            self._write_prompts(self._plan.prompts)
        self._files.close()
        copy_keys = np.concatenate(self._copy_keys) if self._copy_keys else np.zeros(0)
        part = Part(
            plan_sha256=self._parts.plan_sha256,
            report=self._report,
            files={name: writer.summary for name, writer in sorted(self._writers.items())},
            counts=dict(self.counts),
            copy_keys_sha256=self._parts.write_copy_keys(self._place, copy_keys),
            is_last=is_last,
        )
        self._parts.add(self._place, part)

    def add(self, piece: _Piece, chunk: EncodedChunk) -> None:
        """Write the documents of the next block to the splits that their keys choose."""
        self._report.merge(chunk.report)
        if self._deduplicator is not None:
            chunk = self._without_copies(chunk, self._deduplicator)
        self.counts.update(
            num_documents=len(chunk.lengths),
            text_bytes=piece.text_bytes,
            file_bytes=piece.file_bytes,
        )
        if self._held is None:
            self._split([chunk])
            return
        self._held.append(chunk)
        chosen = self._borders.choose(chunk.keys)
        self._filled |= {name for name, is_chosen in chosen.items() if is_chosen.any()}
        if len(self._filled) == len(self._borders.names):
            self._split(self._held)
            self._held = None

    def _without_copies(self, chunk: EncodedChunk, deduplicator: Deduplicator) -> EncodedChunk:
        reasons = deduplicator.reasons(chunk.copy_keys)
        for reason in filter(None, reasons):
            self._report.drop(reason)
        chunk = chunk.taking(np.array([reason is None for reason in reasons], dtype=bool))
        self._copy_keys.append(chunk.copy_keys)
        return chunk

    def _fill_splits(self, held: list[EncodedChunk]) -> None:
        """Write the documents of a first part whose keys leave a split empty."""
        keys = np.concatenate([chunk.keys for chunk in held])
        borders = self._borders.filling(keys)
        if borders is not None:
            self._borders = borders
        elif len(keys):
            self._cut_longest(held, num_different=len(np.unique(keys)))
        self._split(held)

    def _cut_longest(self, held: list[EncodedChunk], *, num_different: int) -> None:
        """Write all documents to training, and the end of the longest to the other splits.

        If even the longest is too short, nothing is written, and a note says why.
        """
        sizes = [chunk.num_characters.max(initial=0) for chunk in held]
        index = int(np.argmax(sizes))
        is_longest = np.arange(len(held[index].lengths)) == held[index].num_characters.argmax()
        tokenizer, ids = self._plan.tokenizer, held[index].taking(is_longest).ids
        # Some vocabularies have no start-of-text token.
        has_start = tokenizer.special_tokens.start_of_text is not None
        text = tokenizer.decode(ids[int(has_start) : -1].tolist())
        pieces, names = self._cut(text), self._borders.names
        if pieces is None:
            self._report.notes.append(
                f"{num_different:,} of them different, the longest has {len(text):,} characters: "
                f"needed are {len(names)} that begin differently, or a document (no conversation) "
                f"of {MIN_CUT_CHARACTERS} characters to cut"
            )
            return
        held_out = " and ".join(f"{size:,}" for size in pieces.num_characters[1:])
        self._report.notes.append(
            f"too few different documents to fill every split: the last {held_out} of "
            f"{len(text):,} characters of the longest are held out"
        )
        # Only the cleaned text is cut, so the raw bytes are divided in proportion.
        raw_bytes = held[index].num_raw_bytes[is_longest]
        raw_bytes = raw_bytes * pieces.num_bytes // pieces.num_bytes.sum()
        pieces = dataclasses.replace(pieces, num_raw_bytes=raw_bytes)
        held[index] = held[index].taking(~is_longest)
        for chunk in held:
            self._write("train", chunk)
        for number, name in enumerate(names):
            self._write(name, pieces.taking(np.arange(len(names)) == number))
        held.clear()

    def _cut(self, text: str) -> EncodedChunk | None:
        """Encode a document in as many pieces as there are splits; `None` if it is too short."""
        config, names = self._plan.config, self._borders.names
        if not isinstance(self._plan.source, SourceConfig):
            return None
        pieces = cut_by_place(text, [config.validation_ratio, config.test_ratio][: len(names) - 1])
        if pieces is None:
            return None
        unfiltered = override(config, min_document_characters=0, quality=QualityConfig())
        chunk = encode_chunk(pieces, self._plan.tokenizer, unfiltered)
        return chunk if len(chunk.lengths) == len(names) else None

    def _split(self, chunks: list[EncodedChunk]) -> None:
        for chunk in chunks:
            for name, is_chosen in self._borders.choose(chunk.keys).items():
                self._write(name, chunk.taking(is_chosen))

    def _write(self, name: str, chunk: EncodedChunk) -> None:
        if not len(chunk.lengths):
            return
        if name not in self._writers:
            writer = TokenFileWriter(
                self._plan.folder,
                f"{name}-{self._place}",
                vocab_size=self._plan.tokenizer.vocab_size,
            )
            self._writers[name] = self._files.enter_context(writer)
        self._writers[name].write_documents(
            chunk.ids,
            chunk.lengths,
            num_characters=int(chunk.num_characters.sum()),
            num_bytes=int(chunk.num_bytes.sum()),
            num_raw_bytes=int(chunk.num_raw_bytes.sum()),
        )
        if name != SYSTEM_PROMPTS:
            self._report.keep(chunk.num_characters, chunk.lengths)

    def _write_prompts(self, files: Listing) -> None:
        """Write the system prompts of a group of conversations to their own token file."""
        plan = self._plan
        downloads = plan.folder / "downloads-prompts"
        blocks = read_blocks(files.files, folder=downloads, skip_bad=plan.skip_bad)
        prompts = [
            Conversation(messages=(Message(role="system", text=prompt),))
            for prompt in read_system_prompts(blocks, skip_bad=plan.skip_bad)
        ]
        chunk = encode_chunk(prompts, plan.tokenizer, plan.config)
        if not len(chunk.lengths):
            raise ValueError(
                f"{plan.source.name!r} has no system prompts; check system_prompts_path"
            )
        self._write(SYSTEM_PROMPTS, chunk)
