"""The demo's documents and conversations as blocks, made on the spot."""

from collections.abc import Iterator
from typing import Any

from dimgpt.data import demo_corpus
from dimgpt.data.block import Block
from dimgpt.data.conversation import Conversation
from dimgpt.data.listing import DEMO_PREFIX


def make_blocks(name: str, *, seed: int, block_bytes: int) -> Iterator[Block]:
    """Yield what `demo://stories/N` or `demo://conversations/N` stands for.

    Raises:
        ValueError: The address is another.
    """
    kind = name.removeprefix(DEMO_PREFIX).partition("/")[0]
    count = _demo_count(name, "conversations" if kind == "conversations" else "stories")
    make = demo_corpus.conversations if kind == "conversations" else demo_corpus.stories
    items: list[str | Conversation] = []
    first = size = 0
    for item in make(count, seed=seed):
        items.append(item)
        texts = [item] if isinstance(item, str) else [message.text for message in item.messages]
        size += sum(map(len, texts))
        if size >= block_bytes:
            yield _made_block(name, first, items, size)
            first, items, size = first + len(items), [], 0
    if items:
        yield _made_block(name, first, items, size)


def _made_block(name: str, first: int, items: list[Any], size: int) -> Block:
    return Block(
        kind="items", name=name, first=first, content=tuple(items), num_bytes=size, file_bytes=0
    )


def _demo_count(path: str, kind: str) -> int:
    count = path.removeprefix(f"{DEMO_PREFIX}{kind}/")
    if not (count.isascii() and count.isdigit() and int(count)):
        raise ValueError(
            f"path is {path!r}: it must be {DEMO_PREFIX}{kind}/N with how many to make, such as "
            f"{DEMO_PREFIX}{kind}/20000"
        )
    return int(count)
