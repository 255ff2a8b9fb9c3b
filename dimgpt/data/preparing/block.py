"""A block: about a megabyte of whole records of a source, as they stand in their file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from dimgpt.data.conversations.conversation import Conversation

Item = str | Conversation
"""A document, or a conversation."""

BLOCK_BYTES = 1 << 20
MAX_RECORD_BYTES = 1 << 26
"""A longer line is refused: parsing takes up to twelve times its size of memory."""
MAX_TEXT_BYTES = 1 << 28
"""A longer text file is refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Whole records of a file; of many files where each is one text."""

    kind: Literal["json", "csv", "table", "texts", "items"]
    name: str
    """The file, for people."""
    first: int
    """Records (lines, rows) of the file before these."""
    content: Any
    """Bytes of lines or of an Arrow stream; (name, bytes) of texts; items, `None` for bad ones."""
    num_bytes: int
    """Size of the content."""
    file_bytes: int
    """Bytes of files, as they lie on the disk, that were read for this block."""
    header: tuple[str, ...] = ()
    """Column names of a CSV file."""
    delimiter: str = ","
    """Of a CSV file."""


def damaged(name: str, place: str, error: Exception) -> ValueError:
    """Return the error of a file that cannot be read to its end."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ValueError(f"{name} is cut short or damaged after {place} ({reason}); fetch it again")


def made_blocks(items: Iterable[Item | None], *, name: str, block_bytes: int) -> Iterator[Block]:
    """Gather items into blocks; `None` stands for a record that is skipped."""
    waiting: list[Item | None] = []
    first = size = 0
    for item in items:
        waiting.append(item)
        size += _num_characters(item)
        if size >= block_bytes:
            yield _made_block(waiting, name=name, first=first, size=size)
            first, waiting, size = first + len(waiting), [], 0
    if waiting:
        yield _made_block(waiting, name=name, first=first, size=size)


def _num_characters(item: Item | None) -> int:
    if isinstance(item, Conversation):
        return sum(len(message.text) for message in item.messages)
    return len(item or "")


def _made_block(items: list[Item | None], *, name: str, first: int, size: int) -> Block:
    return Block(
        kind="items", name=name, first=first, content=tuple(items), num_bytes=size, file_bytes=0
    )
