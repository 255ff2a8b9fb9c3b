"""Prepares the token files of a workspace, and opens them as batches."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from dimgpt.config import ConversationSourceConfig, DataConfig, SourceConfig, TrainingConfig
from dimgpt.data.conversation import Message, encode_message, has_answer
from dimgpt.data.preparing.finishing import read_report
from dimgpt.data.preparing.originals import convert_dimensiongpt_data
from dimgpt.data.preparing.parts import Watch
from dimgpt.data.preparing.plan import Plan, Share, missing_bytes
from dimgpt.data.preparing.preparation import merge, plan_preparation, run_share
from dimgpt.data.preparing.report import SourceReport
from dimgpt.data.reading.finetuning import ConversationCorpus, FinetuningData
from dimgpt.data.reading.preferences import PreferenceData
from dimgpt.data.reading.pretraining import Corpus, PretrainingData
from dimgpt.data.token_file import MANIFEST_NAME, read_manifest
from dimgpt.partial_file import require_space
from dimgpt.pipeline.mixture import expected_shortfalls
from dimgpt.pipeline.vocabulary import keep_data_config, only_one
from dimgpt.presets import PRESETS
from dimgpt.settings import override, to_dict
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.workspace import STAGES, Stage, Workspace, load_data_config, load_vocabulary

log = logging.getLogger(__name__)
_BLOCK_TOKENS = 1 << 20


def prepare_files(
    workspace: Workspace,
    tokenizer: Tokenizer,
    *,
    share: Share | None = None,
    progress: Watch | None = None,
) -> None:
    """Write the token files of every source and every group of conversations.

    An interrupted preparation continues where it stopped.

    Args:
        workspace: Its preset names the sources, its paths the folders.
        tokenizer: The vocabulary of the workspace.
        share: Write only this share; when all shares are written, `merge_shares` joins them.
        progress: Called as parts are written.

    Raises:
        FileNotFoundError, ValueError, OSError, RuntimeError: As `run_share`; or there are
            conversations, and the vocabulary lacks special tokens for them; or another preparation
            is running in the same folder.
    """
    if workspace.preset.data.conversations or workspace.preset.data.preferences:
        _ = tokenizer.chat  # fails if the vocabulary has no special tokens for conversations
    if share is not None:
        for plan in _unfinished_plans(workspace, tokenizer, num_shares=share.count):
            run_share(plan, share, progress=progress)
        return
    with only_one(workspace):
        plans = _unfinished_plans(workspace, tokenizer)
        if plans:
            for line in expected_shortfalls(workspace.preset.data):
                log.warning("%s", line)
        for plan in plans:
            run_share(plan, progress=progress)
        keep_data_config(workspace)


def write_share(
    data: Any = None, rank: int = 0, world_size: int = 1, *, workspace: Workspace
) -> tuple[()]:
    """Write one share of every source, as a step of a `datatrove` pipeline, for `merge_shares`.

    `LocalPipelineExecutor([functools.partial(write_share, workspace=workspace)], tasks=4).run()`
    writes four shares on this machine; the executors for Slurm and Ray take the same step. The
    vocabulary must exist. No documents pass from step to step.

    Args:
        data: Not used; `datatrove` passes it.
        rank: Number of the task, which writes share `rank + 1` of `world_size`.
        world_size: Number of tasks.
        workspace: The same for all tasks, on a shared disk. If its `num_workers` is not set, a task
            uses 1.
    """
    preset, tokenizer = workspace.preset, load_vocabulary(workspace)
    data_config = override(preset.data, num_workers=preset.data.num_workers or 1)
    workspace = override(workspace, preset=override(preset, data=data_config))
    prepare_files(workspace, tokenizer, share=Share(index=rank + 1, count=world_size))
    return ()


def merge_shares(workspace: Workspace) -> None:
    """Make the token files of all sources from the shares of several runs.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: As `merge`; or another preparation is running
            in the same folder.
    """
    tokenizer = load_vocabulary(workspace)
    with only_one(workspace):
        for plan in _unfinished_plans(workspace, tokenizer):
            merge(plan)
        keep_data_config(workspace)


def import_data(
    workspace: Workspace, folder: Path, *, vocabulary_path: Path | None = None
) -> Workspace:
    """Convert a data folder of DimensionGPT, and return the workspace with these data.

    Sources keep their multipliers. Groups of conversations that are also in the preset take its
    ratios and its system prompt for validation. A repeated import changes nothing.

    Args:
        workspace: Gets the converted data.
        folder: DimensionGPT's `data/`, with `pretraining/` and `finetuning/`; it is only read.
        vocabulary_path: Its `vocab.txt`; `None` takes the one in the folder.

    Raises:
        FileNotFoundError: The vocabulary is missing; or as `convert_dimensiongpt_data`.
        ValueError: The workspace has another vocabulary; or as `convert_dimensiongpt_data`.
        RuntimeError: Another preparation is running in the same folder.
    """
    path = vocabulary_path or folder / "vocab.txt"
    if not path.is_file():
        hint = "put DimensionGPT's vocab.txt there, or give its path with --vocabulary"
        raise FileNotFoundError(f"{path} is missing: {hint}")
    tokenizer, target = Tokenizer.load(path), workspace.vocabulary_path
    with only_one(workspace):
        if target.exists() and load_vocabulary(workspace).fingerprint != tokenizer.fingerprint:
            raise ValueError(f"{target} is another vocabulary: choose another name for this import")
        sources, groups = convert_dimensiongpt_data(folder, target.parent, tokenizer)
        tokenizer.save(target)
        data, conversations = workspace.preset.data, []
        published = {group.name: group for group in data.conversations}
        for group in groups:
            known = published.get(group.name, group)
            taken = ("ratio", "system_prompt_ratios", "validation_system_prompt")
            changes = {name: getattr(known, name) for name in taken}
            conversations.append(override(group, **changes))
        texts = {"sources": sources, "conversations": tuple(conversations)}
        data = override(data, **texts, vocab_size=tokenizer.vocab_size)
        made = override(workspace, preset=override(workspace.preset, data=data))
        keep_data_config(made)
    return made


def open_corpus(workspace: Workspace) -> Corpus:
    """Open the documents that `prepare_files` wrote."""
    sources = load_data_config(workspace).sources
    fingerprint = load_vocabulary(workspace).fingerprint
    return Corpus.open(workspace.data_dir("pretraining"), sources, fingerprint)


def require_conversations(
    workspace: Workspace, stage: Stage = "finetuning"
) -> tuple[ConversationSourceConfig, ...]:
    """Return the groups of conversations, or of preferences, that were prepared for a stage.

    Raises:
        ValueError: There are none.
    """
    data, kind = load_data_config(workspace), "conversations"
    groups, flag = data.conversations, " --conversations FILE"
    if stage == "preferences":
        known = PRESETS.get(workspace.data_folder.name)
        groups, kind = data.preferences, "preferences"
        flag = "" if known and known.data.preferences else " --preferences FILE"
    if not groups:
        raise ValueError(
            f"{workspace.data_folder} has no {kind} to train on: prepare them with "
            f"`{workspace.prepare_command}{flag}`, or set {kind.upper()} in create_data.ipynb"
        )
    return groups


def read_reports(workspace: Workspace) -> list[SourceReport]:
    """Return the report of `prepare_files` on each source and each group of conversations."""
    return [
        read_report(folder / source.name, group=getattr(source, "group", ""))
        for source, folder in _all_sources(workspace, load_data_config(workspace))
    ]


def open_data(
    workspace: Workspace, stage: Stage, config: TrainingConfig | None = None
) -> PretrainingData | FinetuningData | PreferenceData:
    """Return the batches of a stage; `config` gives their size, the stage's own if not given.

    Raises:
        ValueError: A file is damaged or has another vocabulary, or there are no conversations.
    """
    config = config or workspace.config(stage)
    shape = {
        "context_length": workspace.preset.model.context_length,
        "batch_size": config.batch_size,
        "accumulation_steps": config.accumulation_steps,
        "seed": config.seed,
    }
    if stage == "pretraining":
        return PretrainingData(open_corpus(workspace), **shape)
    tokenizer, groups = load_vocabulary(workspace), require_conversations(workspace, stage)
    corpus = ConversationCorpus.open(workspace.data_dir(stage), groups, tokenizer.fingerprint)
    data = override(load_data_config(workspace), packing=workspace.packing)
    special_tokens = tokenizer.special_tokens
    padding, end = special_tokens.padding, special_tokens.end_of_text
    filler = end if padding is None else padding
    if stage == "preferences":
        return PreferenceData(corpus, chat=tokenizer.chat, padding=filler, **shape)
    fixed_prompts = {
        group.name: encode_message(Message(role="system", text=prompt), tokenizer)
        for group in groups
        if (prompt := group.validation_system_prompt) is not None
    }
    _require_answers(corpus, tokenizer)
    return FinetuningData(
        corpus,
        chat=tokenizer.chat,
        instruction_weight=data.instruction_weight,
        is_later_uniform=data.later_conversations == "uniform",
        validation_prompts=fixed_prompts,
        packing=data.packing,
        padding=filler,
        **shape,
    )


def fingerprint_data(workspace: Workspace, stage: Stage) -> str:
    """Return a SHA-256 of the token files of a stage, computed from their manifests."""
    folders = source_folders(workspace, stage)
    files = {folder.name: to_dict(read_manifest(folder))["files"] for folder in folders}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def fingerprint_manifests(workspace: Workspace, stage: Stage) -> str:
    """Return the SHA-256 of all that the manifests of a stage's token files say."""
    digest = hashlib.sha256()
    for folder in source_folders(workspace, stage):
        digest.update((folder / MANIFEST_NAME).read_bytes())
    return digest.hexdigest()


def source_folders(workspace: Workspace, stage: Stage) -> list[Path]:
    """Return the folders of token files of a stage, one for each source."""
    sources = _all_sources(workspace, load_data_config(workspace))
    wanted = workspace.data_dir(stage)
    return [folder / source.name for source, folder in sources if folder == wanted]


def _all_sources(
    workspace: Workspace, data: DataConfig
) -> list[tuple[SourceConfig | ConversationSourceConfig, Path]]:
    """Return the sources of all stages, each with the folder of its stage's token files."""
    found: list[tuple[SourceConfig | ConversationSourceConfig, Path]] = []
    for stage, kind in zip(STAGES, ("sources", "conversations", "preferences"), strict=True):
        found += [(source, workspace.data_dir(stage)) for source in getattr(data, kind)]
    return found


def _require_answers(corpus: ConversationCorpus, tokenizer: Tokenizer) -> None:
    """Check that every group has answers of the assistant; files of older versions may have none.

    Raises:
        ValueError: A group has none.
    """
    for groups, split in ((corpus.sources, corpus.train), (corpus.validated, corpus.validation)):
        for group, file in zip(groups, split.files, strict=True):
            blocks = (
                part[start : start + _BLOCK_TOKENS]
                for part in file.parts
                for start in range(0, len(part), _BLOCK_TOKENS)
            )
            if not any(has_answer(block, tokenizer.chat) for block in blocks):
                raise ValueError(
                    f"the conversations of {group.name!r} have no answer of the assistant, so "
                    "there is nothing to learn: correct the roles in the files of this group, and "
                    "prepare them again under another name"
                )


def _unfinished_plans(
    workspace: Workspace, tokenizer: Tokenizer, *, num_shares: int = 1
) -> list[Plan]:
    """Return the preparations that are not finished; check that the disk has room for them."""
    data = workspace.preset.data
    found = (
        plan_preparation(source, tokenizer, folder, config=data)
        for source, folder in _all_sources(workspace, data)
    )
    plans = [plan for plan in found if plan is not None]
    num_bytes = sum(map(missing_bytes, plans)) // num_shares
    require_space(workspace.data_root, num_bytes, what="the preparation in data_root")
    return plans
