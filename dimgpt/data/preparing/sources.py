"""Documents and conversations of a source as a stream, one after the other.

To look at them, and for what is small; `preparation.py` reads the same in blocks, in several
processes. Everything is read in a fixed order. Whatever cannot be read stops the reader with one
line that names the place.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.data.conversations.conversation import Conversation
from dimgpt.data.preparing.block import Block
from dimgpt.data.preparing.blocks import read_blocks
from dimgpt.data.preparing.items import (
    ItemRules,
    read_conversations_of,
    read_documents_of,
)
from dimgpt.data.preparing.listing import (
    DEMO_PREFIX,
    TABLE_SUFFIXES,
    TEXT_SUFFIXES,
    Location,
    is_demo,
    list_source,
)


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
    if is_demo(source.path) and not source.path.startswith(f"{DEMO_PREFIX}stories/"):
        raise ValueError(f"path is {source.path!r}: it must be {DEMO_PREFIX}stories/N")
    rules = ItemRules(source=source, skip_bad=skip_bad)
    is_empty = True
    with _blocks(Location.of(source), rules, seed=seed, suffixes=TEXT_SUFFIXES) as blocks:
        for block in blocks:
            for item in read_documents_of(block, rules):
                if isinstance(item, str):
                    is_empty = False
                    yield item
    if is_empty:
        raise ValueError(f"{source.path} holds no document; check the path of {source.name!r}")


def read_conversations(
    source: ConversationSourceConfig, *, seed: int = 0, skip_bad: bool = False
) -> Iterator[Conversation]:
    """Yield the conversations of a source.

    Records of the forms that `conversation_formats.py` knows, in the places that `read_documents`
    reads, without `.txt`; or `demo://conversations/30000`.

    Args:
        source: Relative paths start at the working directory.
        seed: Seed of the demo's conversations.
        skip_bad: Skip records that cannot be used.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: The source is empty or damaged, or a record is no conversation.
    """
    rules = ItemRules(skip_bad=skip_bad)
    is_empty = True
    with _blocks(Location.of(source), rules, seed=seed, suffixes=TABLE_SUFFIXES) as blocks:
        made = (item for block in blocks for item in block.content)
        for item in made if is_demo(source.path) else read_conversations_of(blocks, rules):
            if isinstance(item, Conversation):
                is_empty = False
                yield item
    if is_empty:
        raise ValueError(f"{source.path} holds no conversation; check the path of {source.name!r}")


@contextlib.contextmanager
def _blocks(
    location: Location, rules: ItemRules, *, seed: int, suffixes: tuple[str, ...]
) -> Iterator[Iterator[Block]]:
    files = list_source(location, suffixes=suffixes).files
    with tempfile.TemporaryDirectory() as folder:
        yield read_blocks(
            files, columns=rules.columns, folder=Path(folder), seed=seed, skip_bad=rules.skip_bad
        )
