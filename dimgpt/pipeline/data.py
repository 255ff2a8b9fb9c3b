"""Sources -> vocabulary -> token files -> batches: what goes where."""

import hashlib
import itertools
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from dimgpt.config import ConversationSourceConfig, DataConfig, SourceConfig, TrainingConfig
from dimgpt.data.manifest import read_manifest
from dimgpt.data.preparing.disk import require_room
from dimgpt.data.preparing.finishing import read_report
from dimgpt.data.preparing.jobs import Job
from dimgpt.data.preparing.listing import TABLE_SUFFIXES, TEXT_SUFFIXES, is_local, list_files
from dimgpt.data.preparing.merging import merge
from dimgpt.data.preparing.preparation import (
    Watch,
    missing_bytes,
    plan_preparation,
    run_job,
    run_share,
)
from dimgpt.data.preparing.report import SourceReport
from dimgpt.data.preparing.shares import Share
from dimgpt.data.preparing.sources import read_conversations
from dimgpt.data.preparing.vocabulary_sample import sample_mixture
from dimgpt.data.reading.corpus import ConversationCorpus, Corpus
from dimgpt.data.reading.finetuning import FinetuningData
from dimgpt.data.reading.pretraining import PretrainingData
from dimgpt.files import lock_file, replace_file
from dimgpt.pipeline.tokenizers import make_tokenizer
from dimgpt.settings import override, to_dict
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.text.tokenizer_file import TOKENIZER_FILES, load_tokenizer_file
from dimgpt.training.micro_batches import TrainingData
from dimgpt.workspace import Stage, Workspace, load_data_config, load_vocabulary

log = logging.getLogger(__name__)


def prepare_vocabulary(
    workspace: Workspace, *, progress: Callable[[int], None] | None = None
) -> Tokenizer:
    """Load the vocabulary, or train it on a sample of the sources and keep it.

    Raises:
        FileNotFoundError: A source, or a group of conversations, is not there.
        ValueError: The vocabulary that is there has another size, or a path holds nothing to read.
        OSError: The data folder cannot be written.
        RuntimeError: Another preparation is running in the same folder.
    """
    data, path = workspace.preset.data, workspace.vocabulary_path
    _require_files(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        pass  # where nothing can be written is known now, not after hours of work
    with only_one(workspace):
        if path.exists():
            return _keep_vocabulary(workspace)
        return _train_vocabulary(workspace, progress)


def _keep_vocabulary(workspace: Workspace) -> Tokenizer:
    """Load the vocabulary that is there, if it is what the preset asks for."""
    data, path = workspace.preset.data, workspace.vocabulary_path
    tokenizer = load_tokenizer_file(path)
    if path.name != TOKENIZER_FILES[data.tokenizer.kind]:
        raise ValueError(
            f"{path} is of another kind than tokenizer.kind, {data.tokenizer.kind!r}: move it "
            "away to train another vocabulary"
        )
    if tokenizer.vocab_size != data.vocab_size:
        raise ValueError(
            f"{path} has {tokenizer.vocab_size:,} tokens: vocab_size is {data.vocab_size:,}; "
            "set vocab_size to its size, or move the file away to train another vocabulary"
        )
    _warn_of_other_sources(workspace)
    return tokenizer


def _train_vocabulary(workspace: Workspace, progress: Callable[[int], None] | None) -> Tokenizer:
    data, path = workspace.preset.data, workspace.vocabulary_path
    documents = sample_mixture(
        data.sources,
        num_characters=data.vocabulary_characters,
        seed=data.seed,
        skip_bad=data.bad_records == "skip",
        folder=path.parent,
    )
    if data.use_conversations_in_vocabulary:
        documents = itertools.chain(documents, _spoken_texts(data))
    tokenizer = make_tokenizer(data, documents, progress=progress)
    tokenizer.save(path)
    return tokenizer


def prepare_files(
    workspace: Workspace, tokenizer: Tokenizer, *, progress: Watch | None = None
) -> None:
    """Write the token files of every source and every group of conversations.

    A run that was cut off goes on where it was.

    Args:
        workspace: What to prepare, and where.
        tokenizer: Its vocabulary.
        progress: Watches.

    Raises:
        FileNotFoundError, ValueError, OSError, RuntimeError: As `prepare_source`.
    """
    with only_one(workspace):
        for job in _plan_jobs(workspace, tokenizer):
            run_job(job, progress=progress)
        keep_data_config(workspace)


def prepare_share(
    workspace: Workspace, tokenizer: Tokenizer, share: Share, *, progress: Watch | None = None
) -> None:
    """Write one share of the token files, for `merge_shares` when all are there.

    Raises:
        ValueError: Copies are to be dropped, which takes one run; or as `prepare_source`.
        FileNotFoundError, OSError, RuntimeError: As `prepare_source`.
    """
    for job in _plan_jobs(workspace, tokenizer, share=share):
        run_share(job, share, progress=progress)


def merge_shares(workspace: Workspace) -> None:
    """Make the token files of all sources of the shares that several runs have written.

    Raises:
        FileNotFoundError: A share is missing.
        ValueError: A share is unfinished, or of other settings, texts or another vocabulary.
        RuntimeError: Another preparation is running in the same folder.
    """
    tokenizer = load_vocabulary(workspace)
    with only_one(workspace):
        for job in _plan_jobs(workspace, tokenizer):
            merge(job)
        keep_data_config(workspace)


def match_vocabulary(workspace: Workspace) -> Workspace:
    """Give the model the vocabulary's size."""
    model = override(workspace.preset.model, vocab_size=load_vocabulary(workspace).vocab_size)
    return override(workspace, preset=override(workspace.preset, model=model))


def open_corpus(workspace: Workspace) -> Corpus:
    """Open the documents that `prepare_files` wrote."""
    sources = load_data_config(workspace).sources
    fingerprint = load_vocabulary(workspace).fingerprint
    return Corpus.open(workspace.data_dir("pretraining"), sources, fingerprint)


def open_conversations(workspace: Workspace) -> ConversationCorpus:
    """Open the conversations that `prepare_files` wrote."""
    groups = load_data_config(workspace).conversations
    fingerprint = load_vocabulary(workspace).fingerprint
    return ConversationCorpus.open(workspace.data_dir("finetuning"), groups, fingerprint)


def read_reports(workspace: Workspace) -> list[SourceReport]:
    """Return what `prepare_files` has seen in each source and each group of conversations."""
    data = load_data_config(workspace)
    reports = [
        read_report(workspace.data_dir("pretraining") / source.name, group=source.group)
        for source in data.sources
    ]
    folder = workspace.data_dir("finetuning")
    return [*reports, *(read_report(folder / group.name) for group in data.conversations)]


def open_data(
    workspace: Workspace, stage: Stage, config: TrainingConfig | None = None
) -> TrainingData:
    """Return the batches of a stage, divided as the config says; by default as the stage's own."""
    config = config or workspace.config(stage)
    shape = {
        "context_length": workspace.preset.model.context_length,
        "batch_size": config.batch_size,
        "accumulation_steps": config.accumulation_steps,
        "seed": config.seed,
    }
    if stage == "pretraining":
        return PretrainingData(open_corpus(workspace), **shape)
    return FinetuningData(
        open_conversations(workspace),
        special_tokens=load_vocabulary(workspace).special_tokens,
        instruction_weight=load_data_config(workspace).instruction_weight,
        **shape,
    )


def _plan_jobs(
    workspace: Workspace, tokenizer: Tokenizer, *, share: Share | None = None
) -> list[Job]:
    """Look what there is to do, and whether the disk has room for all of it."""
    data, jobs = workspace.preset.data, []
    sources: list[SourceConfig | ConversationSourceConfig] = [*data.sources, *data.conversations]
    for source in sources:
        is_documents = isinstance(source, SourceConfig)
        folder = workspace.data_dir("pretraining" if is_documents else "finetuning")
        jobs.append(plan_preparation(source, tokenizer, folder, config=data))
    wanted = [job for job in jobs if job is not None]
    num_bytes = sum(map(missing_bytes, wanted)) // (share.count if share else 1)
    require_room(workspace.data_root, num_bytes)
    return wanted


def only_one(workspace: Workspace) -> AbstractContextManager[None]:
    """Keep two preparations out of each other's files."""
    folder = workspace.vocabulary_path.parent
    return lock_file(
        folder / "lock",
        refusal=f"another preparation is running in {folder}: wait until it ends, stop it, or "
        "prepare under another name",
    )


def keep_data_config(workspace: Workspace) -> None:
    """Write down what the token files were made with, for all that opens them."""
    content = json.dumps(to_dict(workspace.preset.data), indent=1)
    replace_file(workspace.data_config_path, content.encode())


def fingerprint_data(workspace: Workspace, stage: Stage) -> str:
    """Return the SHA-256 of what the token files of a stage hold, as their manifests say."""
    config, folder = load_data_config(workspace), workspace.data_dir(stage)
    sources = config.sources if stage == "pretraining" else config.conversations
    files = {
        source.name: to_dict(read_manifest(folder / source.name))["files"] for source in sources
    }
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _require_files(data: DataConfig) -> None:
    """Look whether local files are there, before hours of work on those that are."""
    groups = data.conversations
    tables = [path for group in groups for path in (group.path, group.system_prompts_path) if path]
    wanted = [(source.path, TEXT_SUFFIXES) for source in data.sources]
    for path, suffixes in [*wanted, *((path, TABLE_SUFFIXES) for path in tables)]:
        if is_local(path):
            list_files(path, suffixes)


def _warn_of_other_sources(workspace: Workspace) -> None:
    if not workspace.data_config_path.exists():
        return
    old, new = load_data_config(workspace).sources, workspace.preset.data.sources
    if {source.path for source in old} != {source.path for source in new}:
        log.warning(
            "%s was made for other sources and is kept; with --name the new ones get a vocabulary "
            "and a model of their own",
            workspace.vocabulary_path,
        )


def _spoken_texts(data: DataConfig) -> Iterator[str]:
    for group in data.conversations:
        for conversation in read_conversations(
            group, seed=data.seed, skip_bad=data.bad_records == "skip"
        ):
            yield "\n".join(message.text for message in conversation.messages)
