"""Documents and conversations of a source as a stream, one after the other.

To look at them, and for what is small; `preparation.py` reads the same in blocks, in several
processes. Everything is read in a fixed order. Whatever cannot be read stops the reader with one
line that names the place.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.data.blocks import read_blocks
from dimgpt.data.conversation import Conversation
from dimgpt.data.listing import TABLE_SUFFIXES, TEXT_SUFFIXES, Location, list_source
from dimgpt.data.records import SYSTEM_PROMPT_RULES, Item, RecordRules, read_items


def read_documents(source: SourceConfig, *, seed: int = 0, skip_bad: bool = False) -> Iterator[str]:
    """Yield the documents of a source, one after the other.

    A file, or a folder read recursively in the order of its paths: `.txt` (a document a file),
    `.jsonl`, `.csv`, each also as `.gz` and `.zst`, and `.parquet` (a document a record); other
    files of a folder are left alone. Or `hf://datasets/owner/name`, one of its files at a time. Or
    `demo://stories/20000`, made on the spot.

    Args:
        source: Relative paths start at the working directory.
        seed: Seed of the demo's documents.
        skip_bad: Skip records that cannot be used.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: The source is empty, damaged, or lacks the column.
    """
    rules = RecordRules.of_documents(source, skip_bad=skip_bad)
    is_empty = True
    for item in _read(Location.of(source), rules, seed=seed, suffixes=TEXT_SUFFIXES):
        if isinstance(item, str):
            is_empty = False
            yield item
    if is_empty:
        raise ValueError(f"{source.path} holds no document; check the path of {source.name!r}")


def read_conversations(
    source: ConversationSourceConfig, *, seed: int = 0, skip_bad: bool = False
) -> Iterator[Conversation]:
    """Yield the conversations of a source.

    Records hold `{"conversation": [{"role", "text"}, ...]}`, `{"messages": [{"role", "content"},
    ...]}`, or `{"user", "assistant"}` and perhaps `"system"`, in the places that `read_documents`
    reads, without `.txt`; or `demo://conversations/30000`.

    Args:
        source: Relative paths start at the working directory.
        seed: Seed of the demo's conversations.
        skip_bad: Skip records that cannot be used.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: The source is empty or damaged, or a record is no conversation.
    """
    rules = RecordRules.of_conversations(skip_bad=skip_bad)
    is_empty = True
    for item in _read(Location.of(source), rules, seed=seed, suffixes=TABLE_SUFFIXES):
        if isinstance(item, Conversation):
            is_empty = False
            yield item
    if is_empty:
        raise ValueError(f"{source.path} holds no conversation; check the path of {source.name!r}")


def read_system_prompts(source: ConversationSourceConfig) -> Iterator[str]:
    """Yield the system prompts of a group, records `{"preprompt": ...}`; none without a path.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: It is damaged, or a record has no `preprompt`.
    """
    location = Location.of_system_prompts(source)
    if location is None:
        return
    for item in _read(location, SYSTEM_PROMPT_RULES, seed=0, suffixes=TABLE_SUFFIXES):
        if isinstance(item, Conversation):
            yield item.messages[0].text


def _read(
    location: Location, rules: RecordRules, *, seed: int, suffixes: tuple[str, ...]
) -> Iterator[Item | None]:
    files = list_source(location, suffixes=suffixes).files
    with tempfile.TemporaryDirectory() as folder:
        for block in read_blocks(files, columns=rules.columns, folder=Path(folder), seed=seed):
            yield from read_items(block, rules)
