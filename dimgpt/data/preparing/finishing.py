"""Makes the finished folder of a source from its parts: index, manifest, final name.

No token is copied. A step that a crash interrupts is repeated or continued at the next start.
"""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dimgpt.config import SourceConfig
from dimgpt.data.preparing.listing import is_demo
from dimgpt.data.preparing.parts import Parts
from dimgpt.data.preparing.plan import Plan
from dimgpt.data.preparing.report import SourceReport
from dimgpt.data.token_file import (
    MANIFEST_NAME,
    PREPARE_AGAIN,
    Manifest,
    TokenFile,
    TokenFileSummary,
    read_manifest,
    write_manifest,
)
from dimgpt.data.token_writer import join_parts
from dimgpt.files import move_folder, replace_file, sha256_of
from dimgpt.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)
REPORT_NAME = "report.json"
# A split misses its ratio if its size is wrong by this factor and by more than this many documents.
_FAR, _FEW_DOCUMENTS = 3, 5


def finish(parts: Parts) -> None:
    """Make one folder of token files from the complete parts of a source.

    An older folder of that name is replaced; other files beside the parts are deleted.

    Raises:
        ValueError: A split is empty; the parts are deleted.
        OSError: The disk is full.
    """
    plan, done = parts.plan, sorted(parts.done.items())
    folder = plan.folder
    report = SourceReport(source="", seed=plan.config.seed)
    for _, part in done:
        report.merge(part.report)
    report.source = plan.source.name
    names = sorted({name for _, part in done for name in part.files})
    if set(plan.borders.names) - set(names):
        shutil.rmtree(folder)
        raise _too_little(plan, report)
    files = {}
    for name in names:
        pieces = [
            (folder / f"{name}-{place}.index.npy", part.files[name])
            for place, part in done
            if name in part.files
        ]
        files[name] = join_parts(folder, name, pieces)
    report.notes += [*plan.listing.notes, *_distant_splits(plan, files)]
    for note in report.notes:
        log.warning("%s: %s", plan.source.name, note)
    write_report(folder, report)
    local = [file for file in plan.files if file.remote is None and not is_demo(file.name)]
    manifest = Manifest(
        vocabulary_sha256=plan.tokenizer.fingerprint,
        vocab_size=plan.tokenizer.vocab_size,
        source=plan.describe(),
        dropped=dict(sorted(report.dropped.items())),
        files=files,
        source_files={file.name: sha256_of(Path(file.name)) for file in local},
    )
    write_manifest(folder, manifest)
    _move_finished(folder, plan.target)


def resume_finish(folder: Path, target: Path) -> None:
    """Rename a finished folder to the target if a crash has prevented that."""
    if (folder / MANIFEST_NAME).is_file():
        _move_finished(folder, target)


def finished_source(folder: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return `Plan.describe` of a folder of intact token files; empty if it is incomplete."""
    try:
        manifest = read_manifest(folder)
        for name in manifest.files:
            TokenFile(folder, name, fingerprint=tokenizer.fingerprint)
    except (FileNotFoundError, ValueError):
        return {}
    return manifest.source


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


def _too_little(plan: Plan, report: SourceReport) -> ValueError:
    name, path, splits = plan.source.name, plan.source.path, plan.borders.names
    kind = "document" if isinstance(plan.source, SourceConfig) else "conversation"
    reasons = ", ".join(f"{why.replace('_', ' ')} {n:,}" for why, n in report.dropped.most_common())
    num_read = report.num_documents + report.dropped.total()
    if not num_read:
        return ValueError(f"{path} holds no {kind}; check the path of {name!r}")
    if not report.num_documents:
        return ValueError(
            f"{name}: all {kind}s of {path} were dropped ({reasons}); check its form, or the "
            "settings that drop them"
        )
    read = f"{num_read:,} {kind}s were read and {report.num_documents:,} kept"
    causes = "; ".join([f"{read} (dropped: {reasons or 'none'})", *report.notes])
    return ValueError(
        f"{name} is too small to split into {', '.join(splits)}: {causes}; add text, or lower "
        "min_document_characters"
    )


def _distant_splits(plan: Plan, files: Mapping[str, TokenFileSummary]) -> list[str]:
    """Return a note for each split whose size is far from its ratio."""
    found = Counter({name: files[name].num_documents for name in plan.borders.names})
    ratios = {"validation": plan.config.validation_ratio, "test": plan.config.test_ratio}
    notes = []
    for name in plan.borders.names[1:]:
        wanted = ratios[name] * found.total()
        few, many = sorted([wanted, found[name]])
        if many > _FAR * few and many - few > _FEW_DOCUMENTS:
            notes.append(
                f"{found[name]:,} of {found.total():,} documents are in {name} instead of about "
                f"{wanted:,.0f}: documents that begin alike stay in one split"
            )
    return notes


def _move_finished(folder: Path, target: Path) -> None:
    """Delete files that the manifest does not name, and rename the folder."""
    manifest = read_manifest(folder)
    kept = {MANIFEST_NAME, REPORT_NAME}
    for name, summary in manifest.files.items():
        kept |= {f"{name}.index.npy", *(part.name for part in summary.parts)}
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in kept:
            path.unlink()
    move_folder(folder, target)
