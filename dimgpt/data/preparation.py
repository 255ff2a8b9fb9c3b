"""Preparation: a source of text becomes a folder of token files, once.

Documents are cleaned, encoded, split into training and validation by document, and written to a
folder that gets its name when it is complete. A complete folder of the same source, settings and
vocabulary is kept as it is; multipliers and ratios do not count, they act when files are opened.
The same settings give the same bytes, whatever the number of processes.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from dimgpt.config import ConversationSourceConfig, DataConfig, SourceConfig
from dimgpt.data.conversation import Conversation, Message
from dimgpt.data.corpus import SYSTEM_PROMPTS
from dimgpt.data.encoding import EncodedChunk, EncodingRules, Item, encode_chunk, encode_in_order
from dimgpt.data.manifest import Manifest, TokenFileSummary, read_manifest, write_manifest
from dimgpt.data.sources import (
    TEXT_SUFFIXES,
    is_demo,
    is_local,
    list_files,
    read_conversations,
    read_documents,
    read_system_prompts,
)
from dimgpt.data.token_file import TokenFile, TokenFileWriter
from dimgpt.files import new_folder
from dimgpt.text.tokenizer import Tokenizer

Progress = Callable[[int, int], None]
"""Called now and then with the documents and the characters of cleaned text done so far."""

_NUM_KEYS = 1 << 64
_NUM_FIRST_ITEMS = 200
# Fields that decide how often something is drawn, or how it is shown: not what is written.
_DRAWING_FIELDS = ("multiplier", "group", "ratio", "system_prompt_ratios")


def prepare_source(
    source: SourceConfig,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    config: DataConfig,
    progress: Progress | None = None,
) -> Path:
    """Write the token files of a source into `folder/<source name>`.

    Args:
        source: Documents.
        tokenizer: Its vocabulary becomes part of the files' identity.
        folder: Such as `data/demo/pretraining`.
        config: Shortest document, validation share, accents, processes, seed.
        progress: Watches.

    Returns:
        The source's folder, complete.

    Raises:
        FileNotFoundError: The path of the source does not exist.
        ValueError: The source cannot be read, or holds fewer than two different documents.
        OSError: The disk is full.
    """
    target = folder / source.name

    def read() -> Iterable[Item]:
        return read_documents(source, seed=config.seed)

    description = _describe(source, config, [source.path], read)
    if _is_complete(target, tokenizer, description):
        return target
    with new_folder(target) as new:
        written = _write_splits(read, tokenizer, new, config, progress)
        _write_manifest(new, tokenizer, description, written)
    return target


def prepare_conversations(
    source: ConversationSourceConfig,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    config: DataConfig,
    progress: Progress | None = None,
) -> Path:
    """Write the conversations of a group, and its system prompts, into `folder/<group name>`.

    They are stored without ⮜start-of-text⮞ and ⮜end-of-text⮞, which their reader adds around
    system prompt and conversation. Arguments, result and errors are those of `prepare_source`.
    """
    target = folder / source.name
    prompts_paths = [source.system_prompts_path] if source.system_prompts_path else []

    def read() -> Iterable[Item]:
        return read_conversations(source, seed=config.seed)

    description = _describe(source, config, [source.path, *prompts_paths], read)
    if _is_complete(target, tokenizer, description):
        return target
    with new_folder(target) as new:
        written = _write_splits(read, tokenizer, new, config, progress)
        if prompts_paths:
            written.files[SYSTEM_PROMPTS] = _write_system_prompts(source, tokenizer, new, config)
        _write_manifest(new, tokenizer, description, written)
    return target


def sample_mixture(
    sources: Sequence[SourceConfig], *, num_characters: int, seed: int
) -> Iterator[str]:
    """Draw documents from the weighted mixture, to train a vocabulary on.

    Every source is read twice: for its size, then for the sample. A document occurs in proportion
    to its source's multiplier, several times if that asks for it. A mixture smaller than
    `num_characters` gives all its documents, those of the smallest multiplier once.

    Args:
        sources: With their multipliers.
        num_characters: About how many characters to draw.
        seed: Decides which.
    """
    sizes = [sum(map(len, read_documents(source, seed=seed))) for source in sources]
    multipliers = [source.multiplier for source in sources]
    weighted_size = sum(size * part for size, part in zip(sizes, multipliers, strict=True))
    scale = min(num_characters / max(weighted_size, 1), 1 / min(multipliers, default=1))
    for source in sources:
        generator = Random(f"{seed} {source.name}")
        expected_copies = scale * source.multiplier
        for document in read_documents(source, seed=seed):
            for _ in range(int(expected_copies + generator.random())):
                yield document


def _write_splits(
    read: Callable[[], Iterable[Item]],
    tokenizer: Tokenizer,
    folder: Path,
    config: DataConfig,
    progress: Progress | None,
) -> "_Written":
    """Write both splits; a small source whose one split stayed empty is written once more."""
    rules = _rules(config)

    def write(border: int) -> _Written:
        encoded = encode_in_order(read(), tokenizer, rules, num_workers=config.num_workers)
        with contextlib.closing(encoded) as chunks:
            return _write_chunks(
                chunks, folder, border=border, vocab_size=tokenizer.vocab_size, progress=progress
            )

    written = write(min(round(config.validation_ratio * _NUM_KEYS), _NUM_KEYS - 1))
    if all(summary.num_documents for summary in written.files.values()):
        return written
    if written.smallest_key >= written.largest_key:
        raise ValueError(
            f"{folder.stem} has too little to split into training and validation: it takes two "
            f"documents that begin differently and have {rules.min_characters} characters or more; "
            "add text, or lower min_document_characters"
        )
    is_validation_empty = not written.files["validation"].num_documents
    return write(written.smallest_key + 1 if is_validation_empty else written.largest_key)


@dataclasses.dataclass(kw_only=True, slots=True)
class _Written:
    """What one pass over a source wrote."""

    files: dict[str, TokenFileSummary] = dataclasses.field(default_factory=dict)
    num_dropped: int = 0
    smallest_key: int = _NUM_KEYS
    largest_key: int = 0


def _write_chunks(
    chunks: Iterable[EncodedChunk],
    folder: Path,
    *,
    border: int,
    vocab_size: int,
    progress: Progress | None,
) -> _Written:
    """Write the items whose key lies below the border for validation, the others for training."""
    written = _Written()
    num_documents = num_characters = 0
    with (
        TokenFileWriter(folder, "train", vocab_size=vocab_size) as train,
        TokenFileWriter(folder, "validation", vocab_size=vocab_size) as validation,
    ):
        for chunk in chunks:
            is_validation = chunk.keys < np.uint64(border)
            _write_items(train, chunk, ~is_validation)
            _write_items(validation, chunk, is_validation)
            if len(chunk.keys):
                written.smallest_key = min(written.smallest_key, int(chunk.keys.min()))
                written.largest_key = max(written.largest_key, int(chunk.keys.max()))
            written.num_dropped += chunk.num_dropped
            num_documents += len(chunk.lengths)
            num_characters += int(chunk.num_characters.sum())
            if progress is not None:
                progress(num_documents, num_characters)
    written.files = {"train": train.summary, "validation": validation.summary}
    return written


def _write_items(
    writer: TokenFileWriter, chunk: EncodedChunk, is_chosen: np.ndarray[Any, Any]
) -> None:
    writer.write_documents(
        chunk.ids[np.repeat(is_chosen, chunk.lengths)],
        chunk.lengths[is_chosen],
        num_characters=int(chunk.num_characters[is_chosen].sum()),
        num_bytes=int(chunk.num_bytes[is_chosen].sum()),
    )


def _write_system_prompts(
    source: ConversationSourceConfig, tokenizer: Tokenizer, folder: Path, config: DataConfig
) -> TokenFileSummary:
    prompts: list[Item] = [
        Conversation(messages=(Message(role="system", text=prompt),))
        for prompt in read_system_prompts(source)
    ]
    chunk = encode_chunk(prompts, tokenizer, _rules(config))
    if not len(chunk.lengths):
        raise ValueError(
            f"{source.system_prompts_path} holds no system prompt; check system_prompts_path of "
            f"{source.name!r}"
        )
    with TokenFileWriter(folder, SYSTEM_PROMPTS, vocab_size=tokenizer.vocab_size) as writer:
        _write_items(writer, chunk, np.ones(len(chunk.lengths), dtype=bool))
    return writer.summary


def _rules(config: DataConfig) -> EncodingRules:
    return EncodingRules(
        min_characters=config.min_document_characters,
        compose_accents=config.compose_accents,
        seed=config.seed,
    )


def _describe(
    source: SourceConfig | ConversationSourceConfig,
    config: DataConfig,
    paths: Sequence[str],
    read: Callable[[], Iterable[Item]],
) -> dict[str, Any]:
    """Return what decides about the files: settings, and the size of the local files.

    The demo has no files; its first items tell whether the code that makes them has changed.
    """
    first = list(islice(read(), _NUM_FIRST_ITEMS)) if is_demo(source.path) else []
    values = dataclasses.asdict(source)
    settings = {name: value for name, value in values.items() if name not in _DRAWING_FIELDS}
    files = [file for path in paths if is_local(path) for file in list_files(path, TEXT_SUFFIXES)]
    return {
        **settings,
        **dataclasses.asdict(_rules(config)),
        "validation_ratio": config.validation_ratio,
        "first_items_sha256": hashlib.sha256(repr(first).encode()).hexdigest() if first else None,
        "num_files": len(files),
        "num_file_bytes": sum(file.stat().st_size for file in files),
    }


def _is_complete(folder: Path, tokenizer: Tokenizer, description: dict[str, Any]) -> bool:
    """Tell whether a folder holds what would be written, undamaged."""
    try:
        manifest = read_manifest(folder)
        if manifest.source != description:
            return False
        for name in manifest.files:
            TokenFile(folder, name, fingerprint=tokenizer.fingerprint)
    except (FileNotFoundError, ValueError):
        return False
    return True


def _write_manifest(
    folder: Path, tokenizer: Tokenizer, description: dict[str, Any], written: _Written
) -> None:
    manifest = Manifest(
        vocabulary_sha256=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
        source=description,
        num_dropped=written.num_dropped,
        files=written.files,
    )
    write_manifest(folder, manifest)
