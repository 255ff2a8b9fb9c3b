"""The finished parts of a source, with which an interrupted preparation continues.

Part K of shard S holds the shard's blocks 256 * K to 256 * K + 255, whichever run writes it. Its
record, `part-0000S-0000K.json`, is written last: a part without a record is written again. The
record of a shard's last part is marked as such; a shard without data has one empty part.
`plan.json` beside the parts holds their plan, and the openings that many documents share, which are
searched only once.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from dimgpt.data.preparing.plan import ALONE, Place, Plan, Share, sample_openings
from dimgpt.data.preparing.report import SourceReport
from dimgpt.data.token_file import TokenFileSummary, check_parts
from dimgpt.files import replace_file, sha256_of
from dimgpt.settings import from_dict

log = logging.getLogger(__name__)
_PLAN_NAME = "plan.json"
_RECORD = re.compile(r"part-(\d{5,})-(\d{5,})\.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The record of a finished part."""

    plan_sha256: str
    """Hash of its plan."""
    report: SourceReport
    """Report on its documents; without the source's name."""
    files: dict[str, TokenFileSummary]
    """Split -> its token file."""
    counts: dict[str, int]
    """`num_documents`, `text_bytes` and `file_bytes`, as in `Progress`."""
    copy_keys_sha256: str | None
    """Hash of the file with the copy keys of its documents."""
    is_last: bool
    """Whether it is the last of its shard."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far the preparation of a source is."""

    source: str
    num_documents: int
    """Documents encoded so far, those of finished parts included."""
    text_bytes: int
    """Bytes of text read so far."""
    file_bytes: int
    """Bytes read so far of its files, which may be compressed."""
    total_file_bytes: int
    """Bytes of all its files; 0 if unknown."""
    disk_free: int
    """Bytes left on the disk."""


Watch = Callable[[Progress], None]
"""Called after every encoded block."""


class Parts:
    """The finished parts of a source, kept in a folder until all parts are finished.

    Attributes:
        done: The intact parts, in their order.
        openings: The result of `splits.find_openings`.
        plan_sha256: Hash of `plan.json`. Parts of other plans do not count.
        downloads: Folder for this share's downloads, which no other run touches.
    """

    def __init__(self, plan: Plan, share: Share | None) -> None:
        """Open the folder, or create it; warn of damaged parts.

        Args:
            plan: The plan of the parts. A run without shares deletes the parts of another plan.
            share: Its own parts are read once, to check their sha256; those of others are not. With
                `None` nothing is written, and only sizes and indexes of all parts are checked.

        Raises:
            ValueError: Other shares follow another plan.
        """
        self.plan, self.share = plan, share
        suffix = f"-{share.index}-of-{share.count}" if share not in (None, ALONE) else ""
        self.downloads = plan.folder / f"downloads{suffix}"
        values, found = plan.values(), read_plan(plan.folder)
        if found is not None and found["plan"] != values and share != ALONE:
            raise ValueError(
                f"{plan.folder} has another plan ({_difference(found['plan'], values)}); "
                "give all shares the same settings, texts and vocabulary, or remove the folder to "
                "begin again"
            )
        if found is None or found["plan"] != values:
            _begin_again(plan, is_shared=share != ALONE)
            found = {"plan": values, "openings": sample_openings(plan, self.downloads)}
            replace_file(plan.folder / _PLAN_NAME, json.dumps(found, indent=1).encode())
        self.openings = tuple(found["openings"])
        content = json.dumps(found, sort_keys=True).encode()
        self.plan_sha256 = hashlib.sha256(content).hexdigest()
        self.done = dict(self._load())
        self._counts = sum((Counter(part.counts) for part in self.done.values()), Counter[str]())

    def first_missing(self, shard: int) -> Place | None:
        """Return the first missing part of a shard; `None` if it is complete."""
        for place in (Place(shard, number) for number in count()):
            if place not in self.done:
                return place
            if self.done[place].is_last:
                return None
        raise AssertionError(shard)

    def lacks_own(self, shard: int) -> bool:
        """Return whether a part of a shard that this share writes is missing, or may be.

        Of N parts in a row, each of N shares writes one, or one share writes all.
        """
        assert self.share is not None
        has_own = False
        for place in (Place(shard, number) for number in count()):
            part, is_own = self.done.get(place), self.share.takes(self.plan, place)
            has_own |= is_own
            if part is None and (is_own or place.number >= self.share.count):
                return has_own
            if part is not None and part.is_last:
                return False
        raise AssertionError(shard)

    def progress(self, counts: Counter[str]) -> Progress:
        """Return the progress, given the counts of the part that is being written."""
        total = self._counts + counts
        return Progress(
            source=self.plan.source.name,
            num_documents=total["num_documents"],
            text_bytes=total["text_bytes"],
            file_bytes=total["file_bytes"],
            total_file_bytes=self.plan.listing.num_bytes,
            disk_free=shutil.disk_usage(self.plan.folder).free,
        )

    def add(self, place: Place, part: Part) -> None:
        """Write the record of a part whose files are on the disk."""
        values = dataclasses.asdict(part) | {"report": part.report.to_dict()}
        replace_file(self._record_path(place), json.dumps(values, indent=1).encode())
        self.done[place] = part
        self._counts.update(part.counts)

    def write_copy_keys(self, place: Place, keys: np.ndarray[Any, Any]) -> str | None:
        """Write the copy keys of a part's documents, uint64 (N, K); return the file's sha256."""
        if not keys.size:
            return None
        content = io.BytesIO()
        np.save(content, keys, allow_pickle=False)
        replace_file(self._copy_keys_path(place), content.getvalue())
        return hashlib.sha256(content.getvalue()).hexdigest()

    def read_copy_keys(self, place: Place) -> np.ndarray[Any, Any]:
        """Return the copy keys of a part's documents, uint64 (N, K)."""
        return np.load(self._copy_keys_path(place), allow_pickle=False)

    def _load(self) -> Iterator[tuple[Place, Part]]:
        found = [_RECORD.fullmatch(path.name) for path in self.plan.folder.glob("part-*.json")]
        for place in sorted(Place(int(match[1]), int(match[2])) for match in found if match):
            path = self._record_path(place)
            try:
                values = json.loads(path.read_bytes())
                if values["plan_sha256"] != self.plan_sha256:
                    raise ValueError("it was made with other settings, texts or vocabulary")
                report = SourceReport.from_dict(values["report"])
                part = from_dict(Part, values | {"report": report})
                self._check(place, part)
            except (ValueError, TypeError, KeyError, AttributeError, FileNotFoundError) as error:
                log.warning("%s cannot be used: %s", path.stem, error)
            else:
                yield place, part

    def _check(self, place: Place, part: Part) -> None:
        if self.share is not None and not self.share.takes(self.plan, place):
            return
        folder, vocab_size = self.plan.folder, self.plan.tokenizer.vocab_size
        hashes = {}
        for name, summary in part.files.items():
            check_parts(folder, summary.parts, vocab_size=vocab_size, verify=self.share is not None)
            hashes[folder / f"{name}-{place}.index.npy"] = summary.index_sha256
        if part.copy_keys_sha256 is not None:
            hashes[self._copy_keys_path(place)] = part.copy_keys_sha256
        for path, expected in hashes.items():
            if sha256_of(path) != expected:
                raise ValueError(f"the sha256 of {path} differs from its record")

    def _record_path(self, place: Place) -> Path:
        return self.plan.folder / f"part-{place}.json"

    def _copy_keys_path(self, place: Place) -> Path:
        return self.plan.folder / f"part-{place}.keys.npy"


def read_plan(folder: Path) -> dict[str, Any] | None:
    """Return the `plan` and `openings` of a folder's `plan.json`; `None` if it has none."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / _PLAN_NAME).read_bytes())
        if isinstance(found, dict) and {"plan", "openings"} <= found.keys():
            return found
    return None


def _difference(found: Any, wanted: Any, name: str = "") -> str:
    if not isinstance(found, dict) or not isinstance(wanted, dict):
        return f"{name} is {str(found)[:40]}, not {str(wanted)[:40]}"
    for key in wanted:
        if found.get(key) != wanted[key]:
            return _difference(found.get(key), wanted[key], key)
    return "it has other settings"


def _begin_again(plan: Plan, *, is_shared: bool) -> None:
    """Delete the parts of another plan or an older version, unless other shares may be writing."""
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
