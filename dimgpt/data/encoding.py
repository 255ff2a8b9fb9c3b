"""Chunks of documents to token ids, in one process or in several.

A chunk is encoded by a pure function of its texts, and chunks come back in their order: the files
made of them are the same for any number of processes. Processes, not threads: encoding is Python.
They are spawned, since a process forked beside torch's threads may hang. Nothing is written here.
"""

import functools
import hashlib
import multiprocessing
import os
import tempfile
import unicodedata
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dimgpt.data.conversation import Conversation, Message, encode_conversation
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.text.tokenizer_file import load_tokenizer_file

Item = str | Conversation
"""A document, or a conversation."""

_CHUNK_CHARACTERS = 1 << 20
# Starting processes takes longer than to encode so little.
_MAX_CHUNKS_WITHOUT_PROCESSES = 8
_WAITING_CHUNKS_PER_WORKER = 3
_KEY_CHARACTERS = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodingRules:
    """What encoding depends on besides the vocabulary."""

    min_characters: int
    """Shorter documents (stripped, before cleaning) are dropped; conversations never."""
    compose_accents: bool
    seed: int
    """Seed of the keys that decide on the split."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedChunk:
    """Encoded items, without those that were dropped."""

    ids: np.ndarray[Any, Any]
    """All of them, concatenated."""
    lengths: np.ndarray[Any, Any]
    """Tokens of each item, int64 (N,)."""
    keys: np.ndarray[Any, Any]
    """A number for each item that near-copies share, uint64 (N,), spread evenly."""
    num_characters: np.ndarray[Any, Any]
    """Characters of each item's cleaned text, int64 (N,)."""
    num_bytes: np.ndarray[Any, Any]
    """UTF-8 bytes of each item's cleaned text, int64 (N,)."""
    num_dropped: int


def encode_in_order(
    items: Iterable[Item],
    tokenizer: Tokenizer,
    rules: EncodingRules,
    *,
    num_workers: int | None,
) -> Generator[EncodedChunk, None, None]:
    """Encode items chunk by chunk, in their order.

    Args:
        items: Documents or conversations.
        tokenizer: Its special tokens enclose documents; conversations are not enclosed.
        rules: What to drop, and how.
        num_workers: Processes; `None` takes one per core. Few chunks are encoded right here.

    Raises:
        RuntimeError: A process died.
    """
    chunks = _cut(items)
    first_chunks = list(islice(chunks, _MAX_CHUNKS_WITHOUT_PROCESSES + 1))
    if num_workers is None:
        num_workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    num_workers = num_workers or os.cpu_count() or 1
    chunks = chain(first_chunks, chunks)
    if num_workers == 1 or len(first_chunks) <= _MAX_CHUNKS_WITHOUT_PROCESSES:
        yield from (encode_chunk(chunk, tokenizer, rules) for chunk in chunks)
        return
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / tokenizer.file_name
            tokenizer.save(path)
            work = functools.partial(_encode_in_worker, vocabulary_path=path, rules=rules)
            yield from _map_in_order(work, chunks, num_workers)
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a process that encodes died: out of memory, killed, or started from a script "
            'without `if __name__ == "__main__":`; run again, with num_workers=1 if it persists'
        ) from error


class _EncodedItem(NamedTuple):
    ids: np.ndarray[Any, Any]
    key: int
    text: str
    """Cleaned."""


def encode_chunk(chunk: list[Item], tokenizer: Tokenizer, rules: EncodingRules) -> EncodedChunk:
    """Encode the items of a chunk, leaving out those that are too short or hold no text."""
    encoded = [
        _encode_conversation(item, tokenizer, rules)
        if isinstance(item, Conversation)
        else _encode_document(item, tokenizer, rules)
        for item in chunk
    ]
    kept = [item for item in encoded if item is not None]
    empty = np.zeros(0, dtype=tokenizer.dtype)
    return EncodedChunk(
        ids=np.concatenate([empty, *(item.ids for item in kept)]),
        lengths=np.array([len(item.ids) for item in kept], dtype=np.int64),
        keys=np.array([item.key for item in kept], dtype=np.uint64),
        num_characters=np.array([len(item.text) for item in kept], dtype=np.int64),
        num_bytes=np.array([len(item.text.encode()) for item in kept], dtype=np.int64),
        num_dropped=len(chunk) - len(kept),
    )


def _encode_document(
    document: str, tokenizer: Tokenizer, rules: EncodingRules
) -> _EncodedItem | None:
    if len(document.strip()) < rules.min_characters:
        return None
    text = tokenizer.clean(document, compose_accents=rules.compose_accents)
    if not text:
        return None
    ids = tokenizer.enclose(tokenizer.encode_array(text, clean=False))
    return _EncodedItem(ids, split_key(text, seed=rules.seed), text)


def _encode_conversation(
    conversation: Conversation, tokenizer: Tokenizer, rules: EncodingRules
) -> _EncodedItem | None:
    if rules.compose_accents:
        conversation = Conversation(
            messages=tuple(
                Message(role=message.role, text=unicodedata.normalize("NFC", message.text))
                for message in conversation.messages
            )
        )
    text = "".join(tokenizer.clean(message.text) for message in conversation.messages)
    if not text:
        return None
    ids = np.array(encode_conversation(conversation, tokenizer), dtype=tokenizer.dtype)
    return _EncodedItem(ids, split_key(text, seed=rules.seed), text)


def split_key(text: str, *, seed: int) -> int:
    """Return a number below 2**64 that texts share whose beginnings differ in little.

    Case, spaces and punctuation do not count, nor does what follows 128 letters and digits.
    """
    # Twice the characters hold 128 letters and digits of any usual text.
    letters = filter(str.isalnum, text[: 2 * _KEY_CHARACTERS].lower())
    beginning = "".join(islice(letters, _KEY_CHARACTERS))
    digest = hashlib.blake2b(f"{seed} {beginning}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _cut(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Gather items into chunks of about a million characters."""
    chunk: list[Item] = []
    num_characters = 0
    for item in items:
        chunk.append(item)
        texts = [item] if isinstance(item, str) else [message.text for message in item.messages]
        num_characters += sum(map(len, texts))
        if num_characters >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, num_characters = [], 0
    if chunk:
        yield chunk


def _map_in_order(
    work: Callable[[list[Item]], EncodedChunk], chunks: Iterable[list[Item]], num_workers: int
) -> Iterator[EncodedChunk]:
    """Map over chunks in processes; few chunks wait at a time, however long the source."""
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(num_workers, mp_context=context)
    waiting: deque[Future[EncodedChunk]] = deque()
    try:
        for chunk in chunks:
            waiting.append(executor.submit(work, chunk))
            if len(waiting) >= _WAITING_CHUNKS_PER_WORKER * num_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def _encode_in_worker(
    chunk: list[Item], *, vocabulary_path: Path, rules: EncodingRules
) -> EncodedChunk:
    return encode_chunk(chunk, _load_tokenizer(vocabulary_path), rules)


@functools.cache
def _load_tokenizer(path: Path) -> Tokenizer:
    """Load the vocabulary once per process: its memory of words is what makes it fast."""
    return load_tokenizer_file(path)
