"""Parts: what of a source is finished, so that a preparation that is cut off goes on after it.

Part K of shard S holds the shard's blocks 256 * K to 256 * K + 255, whoever writes it. Its record,
`part-0000S-0000K.json`, is written last: a part without one is written again. Once somebody has
read shard S to its end, `shard-0000S` says how many parts it has.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dimgpt.data.preparing.plan import Plan, difference, read_plan, write_plan
from dimgpt.data.preparing.report import SourceReport
from dimgpt.data.token_file import TokenFileSummary, check_parts
from dimgpt.files import replace_file, sha256_of
from dimgpt.settings import from_dict

log = logging.getLogger(__name__)
_RECORD = re.compile(r"part-(\d{5,})-(\d{5,})\.json")


class Place(NamedTuple):
    """Which part of which shard."""

    shard: int
    number: int

    def __str__(self) -> str:
        return f"{self.shard:05}-{self.number:05}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The record of a finished part."""

    plan_sha256: str
    """Of the plan that it follows."""
    report: SourceReport
    """Of its documents; without the source's name."""
    files: dict[str, TokenFileSummary]
    """Split -> its token file."""
    counts: dict[str, int]
    """`num_documents`, and the `text_bytes` and `file_bytes` that were read, for `Progress`."""
    copy_keys_sha256: str | None
    """Of the file with the keys by which copies of its documents are known."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Part":
        """Build a record from the plain values that `PartsFolder.add` writes."""
        files = values["files"].items()
        kept = {
            "report": SourceReport.from_dict(values["report"]),
            "files": {name: from_dict(TokenFileSummary, entry) for name, entry in files},
        }
        return cls(**{**values, **kept})


@dataclass(frozen=True, kw_only=True, slots=True)
class PartsFolder:
    """The parts of a source that are there."""

    plan: Plan
    openings: tuple[str, ...]
    """What `splits.find_openings` found."""
    plan_sha256: str
    """Of `plan.json`. Parts of other plans do not count."""

    def load(self, is_wanted: Callable[[Place], bool], *, verify: bool = True) -> dict[Place, Part]:
        """Return the parts that are whole, in their order; warn of damaged ones.

        Args:
            is_wanted: Other parts are not looked at.
            verify: Read them once to check their sha256, not only their sizes.
        """
        found = [_RECORD.fullmatch(path.name) for path in self.plan.folder.glob("part-*.json")]
        places = sorted(Place(int(match[1]), int(match[2])) for match in found if match)
        parts = {}
        for place in filter(is_wanted, places):
            path = self._record_path(place)
            try:
                part = Part.from_dict(json.loads(path.read_bytes()))
                self._check(place, part, verify)
                parts[place] = part
            except (ValueError, TypeError, KeyError, AttributeError, FileNotFoundError) as error:
                log.warning("%s cannot be used: %s", path.stem, error)
        return parts

    def add(self, place: Place, part: Part) -> None:
        """Write the record of a part whose files are on the disk."""
        values = dataclasses.asdict(part) | {"report": part.report.to_dict()}
        replace_file(self._record_path(place), json.dumps(values, indent=1).encode())

    def num_parts(self, shard: int) -> int | None:
        """Return how many parts a shard has; `None` if nobody has read it to its end."""
        with contextlib.suppress(OSError, ValueError):
            content = (self.plan.folder / f"shard-{shard:05}").read_bytes()
            num_parts = int(content.partition(b" ")[0])
            return num_parts if content == self._end_of_shard(shard, num_parts) else None
        return None

    def set_num_parts(self, shard: int, num_parts: int) -> None:
        """Write down how many parts a shard has."""
        content = self._end_of_shard(shard, num_parts)
        replace_file(self.plan.folder / f"shard-{shard:05}", content)

    def _end_of_shard(self, shard: int, num_parts: int) -> bytes:
        """Return what says how many parts a shard has, with a hash by which it is trusted."""
        content = f"{self.plan_sha256} {shard} {num_parts}"
        return f"{num_parts} {hashlib.sha256(content.encode()).hexdigest()}".encode()

    def write_copy_keys(self, place: Place, keys: np.ndarray[Any, Any]) -> str | None:
        """Write the keys of a part's documents, uint64 (N, K), and return their file's sha256."""
        if not keys.size:
            return None
        content = io.BytesIO()
        np.save(content, keys, allow_pickle=False)
        replace_file(self._copy_keys_path(place), content.getvalue())
        return hashlib.sha256(content.getvalue()).hexdigest()

    def read_copy_keys(self, place: Place) -> np.ndarray[Any, Any]:
        """Return the keys of a part's documents, uint64 (N, K)."""
        return np.load(self._copy_keys_path(place), allow_pickle=False)

    def _check(self, place: Place, part: Part, verify: bool) -> None:
        if part.plan_sha256 != self.plan_sha256:
            raise ValueError("it was made with other settings, texts or another vocabulary")
        folder, vocab_size = self.plan.folder, self.plan.tokenizer.vocab_size
        hashes = {}
        for name, summary in part.files.items():
            check_parts(folder, summary.parts, vocab_size=vocab_size, verify=verify)
            hashes[folder / f"{name}-{place}.index.npy"] = summary.index_sha256
        if part.copy_keys_sha256 is not None:
            hashes[self._copy_keys_path(place)] = part.copy_keys_sha256
        for path, expected in hashes.items():
            if sha256_of(path) != expected:
                raise ValueError(f"{path} has another sha256")

    def _record_path(self, place: Place) -> Path:
        return self.plan.folder / f"part-{place}.json"

    def _copy_keys_path(self, place: Place) -> Path:
        return self.plan.folder / f"part-{place}.keys.npy"


def open_folder(plan: Plan, downloads: Path, *, is_shared: bool) -> PartsFolder:
    """Open the folder of a source's parts, or begin one.

    Args:
        plan: What its parts follow.
        downloads: For a new folder, the first file of a hub data set is fetched into it.
        is_shared: Other runs may be writing there, so a folder of another plan is refused.
            Otherwise its parts are deleted.

    Raises:
        ValueError: Other shares follow another plan.
    """
    found = read_plan(plan.folder)
    if found is not None and found["values"] != plan.values() and is_shared:
        raise ValueError(
            f"{plan.folder} was made otherwise ({difference(found['values'], plan.values())}); "
            "give all shares the same settings, texts and vocabulary, or remove the folder to "
            "begin again"
        )
    if found is None or found["values"] != plan.values():
        _begin_again(plan, is_shared=is_shared)
        found = write_plan(plan, downloads)
    content = json.dumps(found, sort_keys=True).encode()
    return PartsFolder(
        plan=plan,
        openings=tuple(found["openings"]),
        plan_sha256=hashlib.sha256(content).hexdigest(),
    )


def _begin_again(plan: Plan, *, is_shared: bool) -> None:
    """Delete the parts of another plan or an older version, unless others may be writing there."""
    if any(plan.folder.glob("part-*.json")):
        log.warning(
            "%s was begun with other settings or texts, or by an older version: it starts again",
            plan.source.name,
        )
    for old in plan.target.parent.glob(f"{plan.target.name}.share-*-of-*"):
        log.warning("%s was made by an older version and is not used; remove it", old)
    if is_shared:
        return
    for path in plan.folder.glob("*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix != ".lock":
            path.unlink()
