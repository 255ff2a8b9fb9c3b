"""Shares of several runs become one folder: indexes and manifests are joined, nothing else."""

import re
from pathlib import Path
from typing import Any

from dimgpt.data.preparing.finishing import PlacedPart, finish
from dimgpt.data.preparing.jobs import Job
from dimgpt.data.preparing.parts import COMPLETE_NAME, PartsFolder, read_plan, total
from dimgpt.data.preparing.preparation import merged_folder, share_folder, too_little
from dimgpt.data.preparing.shares import Share


def merge(job: Job) -> None:
    """Make the folder of a source of its shares.

    Raises:
        FileNotFoundError: A share is missing or unfinished.
        ValueError: A share is damaged, or of other settings, texts or another vocabulary.
    """
    merged = merged_folder(job.target)
    count = _count_shares(job.target, merged)
    shares = [Share(index=index, count=count) for index in range(1, count + 1)]
    found = [_find(job, share, merged) for share in shares]
    merged.mkdir(exist_ok=True)
    for path in found:
        if path.parent != merged:
            path.rename(merged / path.name)
            path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    placed: list[PlacedPart] = []
    for path, share in zip(found, shares, strict=True):
        folder = PartsFolder(
            merged / path.name,
            plan=job.plan(share),
            borders=job.borders,
            vocab_size=job.tokenizer.vocab_size,
            verify=False,
        )
        placed += [PlacedPart(part=part, folder=folder.path) for part in folder.parts()]
    placed.sort(key=lambda one: one.part.start)
    names, _ = total(one.part for one in placed)
    if set(job.borders.names) - names:
        raise too_little(job, [one.part for one in placed])
    finish(merged, job.target, placed, tokenizer=job.tokenizer, description=job.describe())


def _count_shares(target: Path, merged: Path) -> int:
    """Return of how many shares those are that lie here."""
    pattern = re.compile(re.escape(target.name) + r"\.share-\d+-of-(\d+)")
    folders = [*target.parent.glob("*"), *merged.glob("*")]
    counts = {int(match[1]) for path in folders if (match := pattern.fullmatch(path.name))}
    if not counts:
        raise FileNotFoundError(
            f"{target} has no shares to merge; run `python -m dimgpt prepare --shard I/N` first, "
            "with I from 1 to N"
        )
    if len(counts) > 1:
        raise ValueError(
            f"{target} has shares of {' and of '.join(map(str, sorted(counts)))} runs; remove the "
            "folders of those that do not count"
        )
    return counts.pop()


def _find(job: Job, share: Share, merged: Path) -> Path:
    """Return where a share lies, complete and of this job."""
    path = share_folder(job.target, share)
    if (merged / path.name).exists():
        path = merged / path.name
    run_it = f"run `python -m dimgpt prepare --shard {share.index}/{share.count}`"
    if not (path / COMPLETE_NAME).is_file():
        state = "is unfinished" if path.exists() else "is missing"
        raise FileNotFoundError(
            f"share {share.index} of {share.count} of {job.source.name} {state} ({path}); {run_it}"
        )
    found = (read_plan(path) or {"plan": {}})["plan"]
    if found != (wanted := job.plan(share)):
        raise ValueError(
            f"{path} was made otherwise ({_difference(found, wanted)}); {run_it} with the "
            "settings, texts and vocabulary of the others"
        )
    return path


def _difference(found: Any, wanted: Any, name: str = "") -> str:
    """Say where two plans differ first."""
    if not isinstance(found, dict) or not isinstance(wanted, dict):
        return f"{name} is {str(found)[:40]}, not {str(wanted)[:40]}"
    for key in wanted:
        if found.get(key) != wanted[key]:
            return _difference(found.get(key), wanted[key], key)
    return "it knows other settings"
