"""Sources -> vocabulary -> token files -> batches: what goes where."""

import itertools
import json
import logging
import tempfile
from collections.abc import Callable, Iterator

from dimgpt.config import DataConfig
from dimgpt.data.corpus import ConversationCorpus, Corpus
from dimgpt.data.finetuning import FinetuningData
from dimgpt.data.preparation import prepare_conversations, prepare_source, sample_mixture
from dimgpt.data.pretraining import PretrainingData
from dimgpt.data.sources import (
    TABLE_SUFFIXES,
    TEXT_SUFFIXES,
    is_local,
    list_files,
    read_conversations,
)
from dimgpt.files import replace_file
from dimgpt.pipeline.tokenizers import make_tokenizer
from dimgpt.settings import override, to_dict
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.text.tokenizer_file import TOKENIZER_FILES, load_tokenizer_file
from dimgpt.training.trainer import TrainingData
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
    """
    data, path = workspace.preset.data, workspace.vocabulary_path
    _require_files(data)
    if path.exists():
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
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        pass  # where nothing can be written is known now, not after hours of work
    documents = sample_mixture(
        data.sources, num_characters=data.vocabulary_characters, seed=data.seed
    )
    if data.use_conversations_in_vocabulary:
        documents = itertools.chain(documents, _spoken_texts(data))
    tokenizer = make_tokenizer(data, documents, progress=progress)
    tokenizer.save(path)
    return tokenizer


def prepare_files(
    workspace: Workspace, tokenizer: Tokenizer, *, progress: Callable[[int], None] | None = None
) -> None:
    """Write the token files of every source and every group of conversations.

    Args:
        workspace: What to prepare, and where.
        tokenizer: Its vocabulary.
        progress: Called with the characters done so far, over all sources.
    """
    data, before, done = workspace.preset.data, 0, 0

    def report(_: int, characters: int) -> None:
        nonlocal done
        done = before + characters
        if progress is not None:
            progress(done)

    for source in data.sources:
        folder = workspace.data_dir("pretraining")
        prepare_source(source, tokenizer, folder, config=data, progress=report)
        before = done
    for group in data.conversations:
        folder = workspace.data_dir("finetuning")
        prepare_conversations(group, tokenizer, folder, config=data, progress=report)
        before = done
    replace_file(workspace.data_config_path, json.dumps(to_dict(data), indent=1).encode())


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


def open_data(workspace: Workspace, stage: Stage) -> TrainingData:
    """Return the batches of a stage."""
    preset, config = workspace.preset, workspace.config(stage)
    shape = {
        "context_length": preset.model.context_length,
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
        for conversation in read_conversations(group, seed=data.seed):
            yield "\n".join(message.text for message in conversation.messages)
