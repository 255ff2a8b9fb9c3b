"""Prepares a source: turns text into a folder of token files, once.

Documents are cleaned, encoded, split into training, validation and test by document, and written
part by part into `SOURCE.unfinished`, by one run or by several that take shares. An interrupted run
continues with the missing parts. Its output is the same, byte by byte, as without the interruption,
and as with another number of processes. A finished folder of the same source, settings and
vocabulary is kept; multipliers and ratios may differ, because they apply when files are opened.
"""

import dataclasses
from pathlib import Path

from dimgpt.config import ConversationSourceConfig, DataConfig, QualityConfig
from dimgpt.data.preparing.blocks import BLOCK_BYTES
from dimgpt.data.preparing.finishing import finish, finished_source, resume_finish
from dimgpt.data.preparing.listing import Source, is_demo, is_local, list_source
from dimgpt.data.preparing.part_writer import FIRST, write_missing_parts
from dimgpt.data.preparing.parts import Parts, Watch, read_plan
from dimgpt.data.preparing.plan import (
    ALONE,
    PART_BLOCKS,
    Plan,
    Share,
    begun_shares,
    describe_settings,
    group_files,
    hold,
    missing_bytes,
)
from dimgpt.files import restore_folder
from dimgpt.partial_file import require_space
from dimgpt.settings import override
from dimgpt.text.tokenizer import Tokenizer


def prepare_source(
    source: Source,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    config: DataConfig,
    progress: Watch | None = None,
    block_bytes: int = BLOCK_BYTES,
    part_blocks: int = PART_BLOCKS,
) -> Path:
    """Write the token files of a source into `folder/<source name>`.

    Conversations are stored without ⮜start-of-text⮞ and ⮜end-of-text⮞; their reader adds both
    around system prompt and conversation.

    Args:
        source: Documents; or conversations, perhaps with system prompts.
        tokenizer: A finished folder is valid for its vocabulary only.
        folder: Such as `data/demo/pretraining`.
        config: Filters, splits, processes, seed.
        progress: Called after every block.
        block_bytes: Approximate text per block.
        part_blocks: Blocks per part.

    Returns:
        The source's folder, complete.

    Raises:
        FileNotFoundError: The path of the source does not exist.
        ValueError: The source cannot be read, or is too small to split.
        OSError: The disk is full, or has too little space to begin.
        RuntimeError: A process died, or another run writes a share of the source. After any error,
            the finished parts are kept.
    """
    plan = plan_preparation(
        source, tokenizer, folder, config=config, block_bytes=block_bytes, part_blocks=part_blocks
    )
    if plan is not None:
        run_share(plan, progress=progress)
    return folder / source.name


def plan_preparation(
    source: Source,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    config: DataConfig,
    block_bytes: int = BLOCK_BYTES,
    part_blocks: int = PART_BLOCKS,
) -> Plan | None:
    """Plan the preparation of a source; `None` if its folder is complete.

    Arguments and errors are those of `prepare_source`. A hub data set that is complete or begun
    keeps its revision, unless the source names another.
    """
    target = folder / source.name
    restore_folder(target)
    unfinished = target.with_name(f"{target.name}.unfinished")
    resume_finish(unfinished, target)
    settings = describe_settings(source, config)
    finished = finished_source(target, tokenizer)
    is_settled = not is_local(source.path) and not is_demo(source.path)
    if is_settled and finished.get("settings") == settings:
        return None
    begun = (read_plan(unfinished) or {"plan": {}})["plan"].get("source", {})
    revision = begun["revision"] if begun.get("settings") == settings else None
    listing = list_source(dataclasses.replace(source, revision=source.revision or revision))
    prompts = None
    if isinstance(source, ConversationSourceConfig):
        config = override(config, quality=QualityConfig(), validation_ratio=source.validation_ratio)
        if source.system_prompts_path is not None:
            path, hub_config = source.system_prompts_path, source.system_prompts_hub_config
            prompts = list_source(dataclasses.replace(source, path=path, hub_config=hub_config))
    plan = Plan(
        source=source,
        config=config,
        tokenizer=tokenizer,
        target=target,
        settings=settings,
        listing=listing,
        shards=group_files(listing.files, num_bytes=block_bytes * part_blocks),
        prompts=prompts,
        block_bytes=block_bytes,
        part_blocks=part_blocks,
    )
    return None if finished == plan.describe() else plan


def run_share(plan: Plan, share: Share = ALONE, *, progress: Watch | None = None) -> None:
    """Write the missing parts of one share of a source.

    A run without shares then makes the finished folder. The parts of several shares are joined by
    `merge`: all shares write into the same folder, on one disk or on several whose folders are
    copied together.

    Raises:
        ValueError: Copies are to be dropped, or the other shares follow another plan; or as
            `prepare_source`.
        RuntimeError: Another run writes the same share; or as `prepare_source`.
        OSError: As `prepare_source`.
    """
    if share == ALONE:
        require_space(plan.target, missing_bytes(plan), what=plan.source.name)
    elif plan.is_deduplicated:
        raise ValueError(
            f"{plan.source.name}: copies can only be dropped in a single run; prepare without "
            "--shard, or without drop_exact_duplicates and drop_near_duplicates"
        )
    with hold(plan, share):
        if not plan.is_divided and not share.takes(plan, FIRST):
            return
        parts = Parts(plan, share)
        write_missing_parts(parts, progress=progress)
    if share == ALONE:
        finish(parts)


def merge(plan: Plan) -> None:
    """Make the finished folder of a source from the parts of its shares.

    Raises:
        FileNotFoundError: A part is missing; names the share that writes it.
        ValueError: A part is of other settings, texts or another vocabulary.
        RuntimeError: A share is being written.
    """
    counts = [share.count for share in begun_shares(plan) if share != ALONE]
    if not counts:
        raise FileNotFoundError(
            f"{plan.target} has no shares to merge; run `python -m dimgpt prepare --shard I/N` "
            "first, with I from 1 to N"
        )
    with hold(plan, ALONE):
        parts = Parts(plan, None)
        _require_all(parts, num_shares=max(counts))
    finish(parts)


def _require_all(parts: Parts, *, num_shares: int) -> None:
    """Raise `FileNotFoundError` if a part of a source is missing."""
    plan = parts.plan
    for place in filter(None, map(parts.first_missing, range(len(plan.shards)))):
        share = Share.of(plan, place, num_shares)
        state = "unfinished" if share in begun_shares(plan) else "missing"
        raise FileNotFoundError(
            f"share {share.index} of {share.count} of {plan.source.name} is {state}: {plan.folder} "
            f"has no part {place} of the same settings, texts and vocabulary; run "
            f"`python -m dimgpt prepare --shard {share.index}/{share.count}`"
        )
