"""From parts to a finished folder: the index is joined, the manifest written, the name given.

No token is copied. Whatever a crash interrupts is done again or goes on at the next start.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dimgpt.data.manifest import (
    MANIFEST_NAME,
    PREPARE_AGAIN,
    Manifest,
    read_manifest,
    write_manifest,
)
from dimgpt.data.preparing.parts import PLAN_NAME, Part, part_name
from dimgpt.data.preparing.report import SourceReport
from dimgpt.data.token_file import TokenFile
from dimgpt.data.token_writer import join_parts
from dimgpt.files import move_folder, replace_file, sync_folder
from dimgpt.text.tokenizer import Tokenizer

REPORT_NAME = "report.json"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlacedPart:
    """A part and the folder that its files are in."""

    part: Part
    folder: Path


def finish(
    folder: Path,
    target: Path,
    parts: Sequence[PlacedPart],
    *,
    tokenizer: Tokenizer,
    description: dict[str, Any],
) -> None:
    """Make one folder of token files of all parts of a source, and give it its name.

    Args:
        folder: Beside `target`; holds the parts, or the folders that do.
        target: Takes the place of an older folder of that name.
        parts: In their order.
        tokenizer: Made the ids.
        description: Becomes the manifest's `source`.

    Raises:
        OSError: The disk is full.
    """
    names = sorted({name for placed in parts for name in placed.part.files})
    files = {}
    for name in names:
        pieces = [_piece(placed, name, folder) for placed in parts if name in placed.part.files]
        files[name] = join_parts(folder, name, pieces)
    report = _join_reports([placed.part.report for placed in parts], description)
    write_report(folder, report)
    manifest = Manifest(
        vocabulary_sha256=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        source=description,
        dropped=dict(sorted(report.dropped.items())),
        files=files,
    )
    write_manifest(folder, manifest)
    # From here on the manifest counts, no longer the plan.
    (folder / PLAN_NAME).unlink(missing_ok=True)
    sync_folder(folder)
    _move_finished(folder, target)


def resume_finish(folder: Path, target: Path) -> None:
    """Give a folder its name if a crash has kept a finished one from it."""
    if (folder / MANIFEST_NAME).is_file() and not (folder / PLAN_NAME).exists():
        _move_finished(folder, target)


def is_complete(folder: Path, tokenizer: Tokenizer) -> bool:
    """Tell whether a folder holds undamaged token files of a vocabulary."""
    try:
        for name in read_manifest(folder).files:
            TokenFile(folder, name, fingerprint=tokenizer.fingerprint)
    except (FileNotFoundError, ValueError):
        return False
    return True


def write_report(folder: Path, report: SourceReport) -> None:
    """Write `report.json`, which `read_report` reads."""
    content = json.dumps(report.to_dict(), indent=1, ensure_ascii=False)
    replace_file(folder / REPORT_NAME, content.encode())


def read_report(folder: Path, *, group: str = "") -> SourceReport:
    """Return the report of a finished folder.

    Args:
        folder: As `finish` made it.
        group: Group that the source belongs to now.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged.
    """
    path = folder / REPORT_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {PREPARE_AGAIN}")
    try:
        report = SourceReport.from_dict(json.loads(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); {PREPARE_AGAIN}") from error
    report.group = group
    return report


def _join_reports(reports: Sequence[SourceReport], description: dict[str, Any]) -> SourceReport:
    settings = description["settings"]
    joined = SourceReport(source="", seed=settings["seed"])
    for report in reports:
        joined.merge(report)
    joined.source = settings["name"]
    return joined


def _piece(placed: PlacedPart, name: str, folder: Path) -> tuple[Path, Any]:
    """Return the index of a part's token file, and its summary as seen from `folder`."""
    summary = placed.part.files[name]
    parts = tuple(
        dataclasses.replace(part, name=(placed.folder / part.name).relative_to(folder).as_posix())
        for part in summary.parts
    )
    index_path = placed.folder / f"{part_name(placed.part.number, name)}.index.npy"
    return index_path, dataclasses.replace(summary, parts=parts)


def _move_finished(folder: Path, target: Path) -> None:
    """Remove everything that the manifest does not name, and give the folder its name."""
    manifest = read_manifest(folder)
    kept = {folder / MANIFEST_NAME, folder / REPORT_NAME}
    for name, summary in manifest.files.items():
        kept.add(folder / f"{name}.index.npy")
        kept |= {folder / part.name for part in summary.parts}
    _remove_others(folder, kept)
    move_folder(folder, target)


def _remove_others(folder: Path, kept: Iterable[Path]) -> None:
    kept = set(kept)
    folders = {parent for path in kept for parent in path.parents}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path in folders:
            _remove_others(path, kept)
        elif path.is_dir():
            shutil.rmtree(path)
        elif path not in kept:
            path.unlink()
