"""Preparation: a source of text becomes a folder of token files, once.

Documents are cleaned, encoded, split into training, validation and test by document, and written
part by part. A run that is cut off goes on after its last finished part, and ends with the same
bytes as one that was not; so does one with another number of processes. A complete folder of the
same source, settings and vocabulary is kept as it is; multipliers and ratios do not count, they act
when files are opened.
"""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dimgpt.config import ConversationSourceConfig, DataConfig, SourceConfig
from dimgpt.data.manifest import read_manifest
from dimgpt.data.preparing.disk import estimate_text_bytes, estimate_token_bytes, require_room
from dimgpt.data.preparing.finishing import PlacedPart, finish, is_complete, resume_finish
from dimgpt.data.preparing.jobs import Job, Sizes, describe_settings, is_settled, plan_job
from dimgpt.data.preparing.part_stream import write_missing_parts
from dimgpt.data.preparing.parts import COMPLETE_NAME, Part, PartsFolder, read_plan, total
from dimgpt.data.preparing.progress import Progress
from dimgpt.data.preparing.shares import Share
from dimgpt.files import lock_file, replace_file, restore_folder
from dimgpt.text.tokenizer import Tokenizer

Watch = Callable[[Progress], None]
"""Called with every block that is written."""


def prepare_source(
    source: SourceConfig | ConversationSourceConfig,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    config: DataConfig,
    progress: Watch | None = None,
    sizes: Sizes | None = None,
) -> Path:
    """Write the token files of a source into `folder/<source name>`.

    Conversations are stored without ⮜start-of-text⮞ and ⮜end-of-text⮞, which their reader adds
    around system prompt and conversation.

    Args:
        source: Documents; or conversations, perhaps with system prompts.
        tokenizer: Its vocabulary becomes part of the files' identity.
        folder: Such as `data/demo/pretraining`.
        config: What is kept, how it is split, processes, seed.
        progress: Watches.
        sizes: How the source is cut.

    Returns:
        The source's folder, complete.

    Raises:
        FileNotFoundError: The path of the source does not exist.
        ValueError: The source cannot be read, or holds too few different documents to split.
        OSError: The disk is full; or, before anything is written, has no room.
        RuntimeError: A process died. What was finished by then stays, in this case and all others.
    """
    job = plan_preparation(source, tokenizer, folder, config=config, sizes=sizes)
    if job is not None:
        run_job(job, progress=progress)
    return folder / source.name


def plan_preparation(
    source: SourceConfig | ConversationSourceConfig,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    config: DataConfig,
    sizes: Sizes | None = None,
) -> Job | None:
    """Look what there is to do for a source; `None` if its folder is complete.

    Arguments and errors are those of `prepare_source`. A hub data set that is complete, or begun,
    keeps to the revision that was read, unless the source names another.
    """
    target = folder / source.name
    restore_folder(target)
    for folder_of_parts in (unfinished_folder(target), merged_folder(target)):
        resume_finish(folder_of_parts, target)
    settings = describe_settings(source, config)
    finished = read_manifest(target).source if is_complete(target, tokenizer) else {}
    if is_settled(source) and finished.get("settings") == settings:
        return None
    job = plan_job(
        source,
        tokenizer,
        folder,
        config=config,
        settings=settings,
        revision=_begun_revision(target, settings),
        sizes=sizes,
    )
    return None if finished == job.describe() else job


def _begun_revision(target: Path, settings: dict[str, Any]) -> str | None:
    """Return the revision that a run or a share of the same settings was begun with."""
    shares = [*target.parent.glob("*.share-*"), *merged_folder(target).glob("*.share-*")]
    of_target = [path for path in shares if path.name.startswith(f"{target.name}.share-")]
    for path in [unfinished_folder(target), *sorted(of_target)]:
        source = (read_plan(path) or {"plan": {}})["plan"].get("source", {})
        if source.get("settings") == settings:
            return source.get("revision")
    return None


def run_job(job: Job, *, progress: Watch | None = None) -> None:
    """Write what is missing of a source's parts, and make the folder of them.

    Raises:
        ValueError, OSError, RuntimeError: As `prepare_source`.
    """
    require_room(job.target, missing_bytes(job))
    folder = _open_parts(job, unfinished_folder(job.target))
    parts = _write_parts(job, folder, progress=progress)
    placed = [PlacedPart(part=part, folder=folder.path) for part in parts]
    finish(folder.path, job.target, placed, tokenizer=job.tokenizer, description=job.describe())


def run_share(job: Job, share: Share, *, progress: Watch | None = None) -> Path:
    """Write what is missing of one share of a source's parts, and return their folder.

    Raises:
        ValueError: Copies are to be dropped; or as `prepare_source`.
        RuntimeError: Another run writes the same share; or as `prepare_source`.
        OSError: As `prepare_source`.
    """
    if job.is_deduplicated:
        raise ValueError(
            f"{job.source.name}: copies are found in one run only; prepare without --shard, or "
            "without drop_exact_duplicates and drop_near_duplicates"
        )
    path = share_folder(job.target, share)
    with lock_file(
        path.with_name(f"{path.name}.lock"),
        refusal=f"another run writes share {share.index} of {share.count} of {job.source.name}: "
        "wait until it ends, or stop it",
    ):
        (path / COMPLETE_NAME).unlink(missing_ok=True)
        folder = _open_parts(job, path, share=share)
        if job.is_divided:
            write_missing_parts(job, folder, progress=progress, share=share)
        elif share.takes_source(job.source.name):
            _write_parts(job, folder, progress=progress)
        replace_file(folder.path / COMPLETE_NAME, b"")
    return path


def _open_parts(job: Job, path: Path, *, share: Share | None = None) -> PartsFolder:
    """Open the folder of a job's parts, or of a share of them; or begin one."""
    return PartsFolder(
        path, plan=job.plan(share), borders=job.borders, vocab_size=job.tokenizer.vocab_size
    )


def _write_parts(job: Job, folder: PartsFolder, *, progress: Watch | None) -> list[Part]:
    """Write the parts; of a small source whose one split stays empty, some are written again."""
    parts = write_missing_parts(job, folder, progress=progress)
    names, keys = total(parts)
    while keys.smallest < keys.largest:
        borders = folder.borders.without_empty(names, keys)
        if borders == folder.borders:
            break
        folder.move_borders(borders)
        parts = write_missing_parts(job, folder, progress=progress)
        names, keys = total(parts)
    if set(folder.borders.names) - names:
        shutil.rmtree(folder.path)
        raise too_little(job, parts)
    return parts


def share_folder(target: Path, share: Share) -> Path:
    """Return where one share of a source's parts waits for the others."""
    return target.with_name(f"{target.name}.share-{share.index}-of-{share.count}")


def unfinished_folder(target: Path) -> Path:
    """Return where the parts of a source wait until all are there."""
    return target.with_name(f"{target.name}.unfinished")


def merged_folder(target: Path) -> Path:
    """Return where the shares of a source are gathered."""
    return target.with_name(f"{target.name}.merged")


def missing_bytes(job: Job) -> int:
    """Return about how much room a source still takes: token files, and one file fetched."""
    text_bytes = estimate_text_bytes(job.source, job.listing)
    fetched = max((file.num_bytes for file in job.listing.files if file.remote), default=0)
    whole = estimate_token_bytes(text_bytes, vocab_size=job.tokenizer.vocab_size)
    written = unfinished_folder(job.target).glob("*.bin")
    return fetched + max(0, whole - sum(path.stat().st_size for path in written))


def too_little(job: Job, parts: list[Part]) -> ValueError:
    """Return the error of a source with an empty split."""
    splits = job.borders.names
    if not any(part.num_documents or part.report.dropped for part in parts):
        kind = "document" if isinstance(job.source, SourceConfig) else "conversation"
        return ValueError(
            f"{job.source.path} holds no {kind}; check the path of {job.source.name!r}"
        )
    dropped = sum((part.report.dropped for part in parts), Counter())
    if dropped and not any(part.num_documents for part in parts):
        reasons = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in dropped.most_common())
        return ValueError(
            f"{job.source.name}: nothing of {job.source.path} was kept (dropped: {reasons}); check "
            "its form, or the settings that drop these"
        )
    return ValueError(
        f"{job.source.name} has too little to split into {', '.join(splits)}: it takes "
        f"{len(splits)} documents that begin differently and have "
        f"{job.config.min_document_characters} characters or more; add text, or lower "
        "min_document_characters"
    )
