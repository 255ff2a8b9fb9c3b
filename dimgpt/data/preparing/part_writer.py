"""Writes one part: encoded chunks go to the token files of their splits, copies are left out."""

import contextlib
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from dimgpt.data.preparing.encoding import EncodedChunk
from dimgpt.data.preparing.parts import Part, PartsFolder, Position, part_name
from dimgpt.data.preparing.quality import Deduplicator
from dimgpt.data.preparing.report import SourceReport
from dimgpt.data.preparing.splits import KeyRange
from dimgpt.data.token_writer import TokenFileWriter


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """Where a block stands in its source."""

    end: Position
    """Where the next block of this run starts: another shard, if this was the last of its own."""
    text_bytes: int
    file_bytes: int

    @property
    def ends_shard(self) -> bool:
        """Tell whether it was the last of its shard."""
        return self.end.block == 0


class PartWriter:
    """Write one part into a folder of parts, which knows of it when all is on the disk.

    A context manager: leaving it by an exception removes what was written.
    """

    def __init__(
        self,
        folder: PartsFolder,
        *,
        number: int,
        start: Position,
        seed: int,
        deduplicator: Deduplicator | None,
    ) -> None:
        self.text_bytes = self.file_bytes = 0
        self.num_documents = self.num_characters = 0
        self.end = start
        self._folder = folder
        self._number = number
        self._start = start
        self._deduplicator = deduplicator
        self._stack = contextlib.ExitStack()
        self._writers: dict[str, TokenFileWriter] = {}
        self._keys = KeyRange()
        self._copy_keys: list[np.ndarray[Any, Any]] = []
        self._report = SourceReport(source="", seed=seed)

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if kind is None:
            self._folder.add(self._finish())

    def write(self, chunk: EncodedChunk, mark: Mark) -> None:
        """Write what the next block holds, to the splits that the keys choose.

        Raises:
            OSError: The disk is full or cannot be written.
        """
        is_kept = self._leave_out_copies(chunk)
        for split, is_chosen in self._folder.borders.choose(chunk.keys).items():
            self._write(split, chunk, is_chosen & is_kept)
        self._keys = self._keys.joined(KeyRange.of(chunk.keys[is_kept]))
        self._report.merge(chunk.report)
        self._report.keep(chunk.num_characters[is_kept], chunk.lengths[is_kept])
        self._count(mark)

    def write_whole(self, name: str, chunk: EncodedChunk, mark: Mark) -> None:
        """Write all of a chunk to the token file `name`."""
        self._write(name, chunk, np.ones(len(chunk.lengths), dtype=bool))
        self._count(mark)

    def _leave_out_copies(self, chunk: EncodedChunk) -> np.ndarray[Any, Any]:
        """Tell which items to keep, bool (N,), and count the others."""
        if self._deduplicator is None:
            return np.ones(len(chunk.keys), dtype=bool)
        reasons = self._deduplicator.reasons(chunk.copy_keys)
        for reason in reasons:
            if reason is not None:
                self._report.drop(reason)
        is_kept = np.array([reason is None for reason in reasons], dtype=bool)
        self._copy_keys.append(chunk.copy_keys[is_kept])
        return is_kept

    def _write(self, name: str, chunk: EncodedChunk, is_chosen: np.ndarray[Any, Any]) -> None:
        if not is_chosen.any():
            return
        if name not in self._writers:
            writer = TokenFileWriter(
                self._folder.path,
                part_name(self._number, name),
                vocab_size=self._folder.vocab_size,
            )
            self._writers[name] = self._stack.enter_context(writer)
        num_characters = int(chunk.num_characters[is_chosen].sum())
        self._writers[name].write_documents(
            chunk.ids[np.repeat(is_chosen, chunk.lengths)],
            chunk.lengths[is_chosen],
            num_characters=num_characters,
            num_bytes=int(chunk.num_bytes[is_chosen].sum()),
        )
        self.num_documents += int(is_chosen.sum())
        self.num_characters += num_characters

    def _count(self, mark: Mark) -> None:
        self.text_bytes += mark.text_bytes
        self.file_bytes += mark.file_bytes
        self.end = mark.end

    def _finish(self) -> Part:
        copy_keys = np.concatenate(self._copy_keys) if self._copy_keys else np.zeros(0)
        return Part(
            number=self._number,
            start=self._start,
            end=self.end,
            borders=self._folder.borders,
            keys=self._keys,
            text_bytes=self.text_bytes,
            file_bytes=self.file_bytes,
            report=self._report,
            copy_keys_sha256=self._folder.write_copy_keys(self._number, copy_keys),
            files={name: writer.summary for name, writer in sorted(self._writers.items())},
        )
