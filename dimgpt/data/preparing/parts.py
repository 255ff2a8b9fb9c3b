"""Parts: what of a source is finished, so that a preparation that is cut off goes on after it.

A folder `SOURCE.unfinished` holds a plan, and for each finished part its token files and, written
last, `part-00000.json`: what it covers and what it holds. Whatever belongs to no finished part is
thrown away. Which blocks go into a part is `preparation.py`'s.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dimgpt.data.manifest import TokenFileSummary
from dimgpt.data.preparing.report import SourceReport
from dimgpt.data.preparing.splits import Borders, KeyRange
from dimgpt.data.token_file import check_parts
from dimgpt.files import replace_file, sha256_of

log = logging.getLogger(__name__)
PLAN_NAME = "plan.json"
COMPLETE_NAME = "complete"
"""A file that is in the folder of a share when all its parts are."""
_DOWNLOADS = "downloads"


class Position(NamedTuple):
    """A place between two blocks of a source."""

    shard: int
    block: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A finished part: the blocks from `start` up to `end`."""

    number: int
    start: Position
    end: Position
    """Where the next part starts."""
    borders: Borders
    keys: KeyRange
    """Of its documents."""
    text_bytes: int
    """Size of the blocks."""
    file_bytes: int
    """What was read of the source's files for it."""
    report: SourceReport
    """Of its documents; without the source's name."""
    copy_keys_sha256: str | None
    """Of the file with the keys by which copies of its documents are known."""
    files: dict[str, TokenFileSummary]

    def to_dict(self) -> dict[str, Any]:
        """Turn the part into plain values that JSON can hold."""
        return dataclasses.asdict(self) | {"report": self.report.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Part":
        """Build a part from `to_dict`'s values."""
        files = values["files"].items()
        kept = {
            "start": Position(*values["start"]),
            "end": Position(*values["end"]),
            "borders": Borders(**values["borders"]),
            "keys": KeyRange(**values["keys"]),
            "report": SourceReport.from_dict(values["report"]),
            "files": {name: TokenFileSummary.from_dict(entry) for name, entry in files},
        }
        return cls(**{**values, **kept})

    @property
    def num_documents(self) -> int:
        """Documents of all splits."""
        return sum(summary.num_documents for summary in self.files.values())

    @property
    def num_characters(self) -> int:
        """Characters of cleaned text, of all splits."""
        return sum(summary.num_characters for summary in self.files.values())


class PartsFolder:
    """The finished parts of a source."""

    def __init__(
        self,
        path: Path,
        *,
        plan: dict[str, Any],
        borders: Borders,
        vocab_size: int,
        verify: bool = True,
    ) -> None:
        """Open a folder of parts, or begin one.

        Args:
            path: Parts of another plan that are there are thrown away.
            plan: Plain values that decide what the parts hold.
            borders: Between the splits, for a new folder.
            vocab_size: Tokens of the vocabulary.
            verify: Read the parts once to check their sha256, not only their sizes.

        Raises:
            OSError: It cannot be written.
        """
        self.path = path
        self.vocab_size = vocab_size
        self.borders = borders
        self._verify = verify
        self._plan = plan
        self._parts: dict[Position, Part] = {}
        found = read_plan(path)
        if found is not None and found["plan"] == plan:
            self.borders = Borders(**found["borders"])
            self._parts = {part.start: part for part in self._load()}
        elif path.exists():
            if any(path.glob("part-*.json")):
                log.warning("%s was begun with other settings or texts: it starts again", path.stem)
            shutil.rmtree(path)
        self._sweep()
        self._write_plan()

    @property
    def downloads(self) -> Path:
        """Where files wait that are fetched, whole or not."""
        return self.path / _DOWNLOADS

    def parts_from(self, start: Position) -> Iterator[Part]:
        """Yield the parts that follow each other from a position on."""
        while part := self._parts.get(start):
            yield part
            start = part.end

    def parts(self) -> list[Part]:
        """Return all parts, in their order."""
        return [self._parts[start] for start in sorted(self._parts)]

    def holds(self, start: Position) -> bool:
        """Tell whether there is a part that starts at a position."""
        return start in self._parts

    def move_borders(self, borders: Borders) -> None:
        """Take other borders between the splits; parts that they change are thrown away."""
        self.borders = borders
        self._write_plan()
        self._parts = {part.start: part for part in self._parts.values() if self._is_split(part)}
        self._sweep()

    def add(self, part: Part) -> None:
        """Take a part whose files are on the disk."""
        content = json.dumps(part.to_dict(), indent=1)
        replace_file(self.path / f"{part_name(part.number)}.json", content.encode())
        self._parts[part.start] = part

    def write_copy_keys(self, number: int, keys: np.ndarray[Any, Any]) -> str | None:
        """Write the keys of a part's documents, uint64 (N, K), and return their file's sha256."""
        if not keys.size:
            return None
        content = io.BytesIO()
        np.save(content, keys, allow_pickle=False)
        replace_file(self._copy_keys_path(number), content.getvalue())
        return hashlib.sha256(content.getvalue()).hexdigest()

    def read_copy_keys(self, part: Part) -> np.ndarray[Any, Any] | None:
        """Return the keys of a part's documents, if it has some."""
        if part.copy_keys_sha256 is None:
            return None
        return np.load(self._copy_keys_path(part.number), allow_pickle=False)

    def _write_plan(self) -> None:
        values = {"plan": self._plan, "borders": dataclasses.asdict(self.borders)}
        replace_file(self.path / PLAN_NAME, json.dumps(values, indent=1).encode())

    def _load(self) -> Iterator[Part]:
        """Yield the parts that are whole."""
        for path in sorted(self.path.glob("part-*.json")):
            part = self._load_part(path)
            if part is not None:
                yield part

    def _load_part(self, path: Path) -> Part | None:
        try:
            part = Part.from_dict(json.loads(path.read_bytes()))
            self._check(part)
        except (ValueError, TypeError, KeyError, FileNotFoundError) as error:
            log.warning("%s is damaged and made again: %s", path.stem, error)
            return None
        return part if self._is_split(part) else None

    def _check(self, part: Part) -> None:
        for name, summary in part.files.items():
            check_parts(self.path, summary.parts, vocab_size=self.vocab_size, verify=self._verify)
            index_path = self.path / f"{part_name(part.number, name)}.index.npy"
            if sha256_of(index_path) != summary.index_sha256:
                raise ValueError(f"{index_path} has another sha256")
        keys_path = self._copy_keys_path(part.number)
        if part.copy_keys_sha256 and sha256_of(keys_path) != part.copy_keys_sha256:
            raise ValueError(f"{keys_path} has another sha256")

    def _is_split(self, part: Part) -> bool:
        return part.borders.splits_as(self.borders, part.keys)

    def _sweep(self) -> None:
        """Remove what belongs to no finished part: its description first, then its files."""
        if not self.path.exists():
            return
        kept = {PLAN_NAME, COMPLETE_NAME, _DOWNLOADS}
        for part in self._parts.values():
            name = part_name(part.number)
            kept |= {f"{name}.json", self._copy_keys_path(part.number).name}
            for split in part.files:
                file_name = part_name(part.number, split)
                kept |= {f"{file_name}.bin", f"{file_name}.index.npy"}
        others = [path for path in self.path.iterdir() if path.name not in kept]
        for path in sorted(others, key=lambda path: path.suffix != ".json"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _copy_keys_path(self, number: int) -> Path:
        return self.path / f"{part_name(number)}.keys.npy"


def part_name(number: int, split: str = "part") -> str:
    """Return how the files of a part are called, without suffix."""
    return f"{split}-{number:05}"


def read_plan(path: Path) -> dict[str, Any] | None:
    """Return `plan` and `borders` of a folder of parts, if it is one."""
    with contextlib.suppress(OSError, ValueError):
        values = json.loads((path / PLAN_NAME).read_bytes())
        if isinstance(values, dict) and {"plan", "borders"} <= values.keys():
            return values
    return None


def total(parts: Iterable[Part]) -> tuple[set[str], KeyRange]:
    """Return which token files the parts hold something of, and the range of their keys."""
    names: set[str] = set()
    keys = KeyRange()
    for part in parts:
        names |= part.files.keys()
        keys = keys.joined(part.keys)
    return names, keys
