"""Preparation: a source of text becomes a folder of token files, once.

Documents are cleaned, encoded, split into training, validation and test by document, and written
part by part into `SOURCE.unfinished`, by one run or by several that take shares. A run that was cut
off goes on with the parts that are not there, and ends with the same bytes as one that was not; so
does one with another number of processes. A complete folder of the same source, settings and
vocabulary is kept as it is; multipliers and ratios do not count, they act when files are opened.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from dimgpt.config import ConversationSourceConfig, DataConfig, QualityConfig
from dimgpt.data.preparing.blocks import BLOCK_BYTES
from dimgpt.data.preparing.finishing import finish, finished_source, resume_finish
from dimgpt.data.preparing.listing import Source, is_demo, is_local, list_source
from dimgpt.data.preparing.part_writer import FIRST
from dimgpt.data.preparing.parts import Part, PartsFolder, Place, open_folder
from dimgpt.data.preparing.plan import (
    PART_BLOCKS,
    Plan,
    describe_settings,
    group_files,
    missing_bytes,
    read_plan,
    require_room,
)
from dimgpt.data.preparing.shares import ALONE, Share, Watch, begun_shares, hold, write_parts
from dimgpt.files import restore_folder
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

    Conversations are stored without ⮜start-of-text⮞ and ⮜end-of-text⮞, which their reader adds
    around system prompt and conversation.

    Args:
        source: Documents; or conversations, perhaps with system prompts.
        tokenizer: Its vocabulary becomes part of the files' identity.
        folder: Such as `data/demo/pretraining`.
        config: What is kept, how it is split, processes, seed.
        progress: Watches.
        block_bytes: Text that a worker gets at a time, about.
        part_blocks: Blocks of a part.

    Returns:
        The source's folder, complete.

    Raises:
        FileNotFoundError: The path of the source does not exist.
        ValueError: The source cannot be read, or holds too little to split.
        OSError: The disk is full; or, before anything is written, has no room.
        RuntimeError: A process died, or a share of the source is being written. What was finished
            by then stays, in this case and all others.
    """
    plan = plan_preparation(
        source, tokenizer, folder, config=config, block_bytes=block_bytes, part_blocks=part_blocks
    )
    if plan is not None:
        run_job(plan, progress=progress)
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
    """Look what there is to do for a source; `None` if its folder is complete.

    Arguments and errors are those of `prepare_source`. A hub data set that is complete, or begun,
    keeps to the revision that was read, unless the source names another.
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
    begun = (read_plan(unfinished) or {"values": {}})["values"].get("source", {})
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


def run_job(plan: Plan, *, progress: Watch | None = None) -> None:
    """Write the parts of a source that are not there, and make the finished folder of all.

    Raises:
        ValueError, OSError, RuntimeError: As `prepare_source`.
    """
    require_room(plan.target, missing_bytes(plan))
    with hold(plan, ALONE):
        parts = write_parts(plan, ALONE, progress=progress)
    finish(plan, parts)


def run_share(plan: Plan, share: Share, *, progress: Watch | None = None) -> None:
    """Write the parts of one share of a source that are not there, for `merge`.

    All shares of a source write into the same folder, on one disk or on several whose folders are
    copied together.

    Raises:
        ValueError: Copies are to be dropped, or the other shares follow another plan; or as
            `prepare_source`.
        RuntimeError: Another run writes the same share; or as `prepare_source`.
        OSError: As `prepare_source`.
    """
    if plan.is_deduplicated:
        raise ValueError(
            f"{plan.source.name}: copies are found in one run only; prepare without --shard, or "
            "without drop_exact_duplicates and drop_near_duplicates"
        )
    with hold(plan, share):
        if plan.is_divided or share.takes(plan, FIRST):
            write_parts(plan, share, progress=progress)


def merge(plan: Plan) -> None:
    """Make the finished folder of a source of the parts that its shares have written.

    Raises:
        FileNotFoundError: A part is missing; says which share writes it.
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
        folder = open_folder(plan, plan.folder / "downloads", is_shared=True)
        parts = _find_all(folder, num_shares=max(counts))
    finish(plan, parts)


def _find_all(folder: PartsFolder, *, num_shares: int) -> dict[Place, Part]:
    """Return all parts of a source, or say which one is missing."""
    plan = folder.plan
    parts = folder.load(lambda place: True, verify=False)
    for shard in range(len(plan.shards)):
        num_parts = folder.num_parts(shard)
        missing = [Place(shard, number) for number in range(num_parts or 0)]
        missing = [place for place in missing if place not in parts]
        if num_parts is None:  # the share with the first part of a shard reads it to its end
            missing = [Place(shard, 0)]
        if not missing:
            continue
        share = Share.of(plan, missing[0], num_shares)
        state = "unfinished" if share in begun_shares(plan) else "missing"
        raise FileNotFoundError(
            f"share {share.index} of {share.count} of {plan.source.name} is {state}: {plan.folder} "
            f"has no part {missing[0]} of the same settings, texts and vocabulary; run "
            f"`python -m dimgpt prepare --shard {share.index}/{share.count}`"
        )
    return parts


def write_share(
    data: Any = None,
    rank: int = 0,
    world_size: int = 1,
    *,
    config: DataConfig,
    vocabulary_path: Path,
    pretraining_dir: Path,
    finetuning_dir: Path,
    preferences_dir: Path | None = None,
    **sizes: int,
) -> Iterable[Any]:
    """Write one share of every source, as a step of a `datatrove` pipeline, for `merge`.

    Bind the named arguments with `functools.partial`. No documents pass from step to step.

    Args:
        data: Not used.
        rank: Of the task; it writes share `rank + 1` of `world_size`.
        world_size: Tasks.
        config: What to prepare; `num_workers` is 1 unless a task has several cores.
        vocabulary_path: An existing vocabulary, seen from the machine of the task.
        pretraining_dir: Gets the documents; the same folder for all tasks, as on a shared disk.
        finetuning_dir: Gets the conversations.
        preferences_dir: Gets the pairs of answers; `preferences` beside the others if not given.
        sizes: `block_bytes` and `part_blocks` of `plan_preparation`; the same for the merge.
    """
    tokenizer = Tokenizer.load(vocabulary_path)
    config = override(config, num_workers=config.num_workers or 1)
    for folder, sources in (
        (pretraining_dir, config.sources),
        (finetuning_dir, config.conversations),
        (preferences_dir or finetuning_dir.with_name("preferences"), config.preferences),
    ):
        for source in sources:
            plan = plan_preparation(source, tokenizer, folder, config=config, **sizes)
            if plan is not None:
                run_share(plan, Share(index=rank + 1, count=world_size))
    return ()


def make_executor(
    kind: Literal["local", "slurm", "ray"],
    step: Callable[..., Any],
    *,
    num_shares: int,
    logging_dir: Path,
    **options: Any,
) -> Any:
    """Return an executor of `datatrove` whose `run()` writes all shares.

    Args:
        kind: This machine, a Slurm cluster (one job array), or a Ray cluster.
        step: What each task does: `write_share` with its named arguments.
        num_shares: Tasks.
        logging_dir: Gets their logs and what is completed; a second run does the rest.
        options: More of the executor's own, such as `workers`, `time`, `partition`.

    Raises:
        ImportError: `datatrove` is not installed.
    """
    try:
        import datatrove.executor as executor
    except ImportError as error:
        raise ImportError(
            "shares on an executor need datatrove: pip install 'datatrove[ray]'; "
            "`python -m dimgpt prepare --shard I/N` works without"
        ) from error
    executors = {
        "local": executor.LocalPipelineExecutor,
        "slurm": executor.SlurmPipelineExecutor,
        "ray": executor.RayPipelineExecutor,
    }
    return executors[kind](
        pipeline=[step], tasks=num_shares, logging_dir=str(logging_dir), **options
    )
