"""Encodes documents and conversations as token ids: a pure function, without files or processes.

The result depends on the item, the vocabulary and the settings, not on earlier items, so any
process can encode any block. Copies of earlier documents get equal keys here and are dropped later.
"""

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dimgpt.config import DataConfig
from dimgpt.data.conversation import Conversation, Message, Preference, encode_conversation
from dimgpt.data.preparing.blocks import Block, Item
from dimgpt.data.preparing.items import read_items
from dimgpt.data.preparing.listing import Source
from dimgpt.data.preparing.quality import duplicate_keys, num_duplicate_keys, reason_to_drop
from dimgpt.data.preparing.report import SourceReport
from dimgpt.data.preparing.splits import OPENING_CHARACTERS, split_key
from dimgpt.text.tokenizer import Tokenizer

UNREADABLE, TOO_SHORT, EMPTY, SAME_ANSWERS = "unreadable", "too_short", "empty", "same_answers"
_LONG_CHARACTERS = 1 << 22
_SAFE_CUT = re.compile(r"(?<=[A-Za-z0-9.,])[\n ](?=[A-Za-z0-9])")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedChunk:
    """Encoded items, without those that were dropped."""

    ids: np.ndarray[Any, Any]
    """Ids of all items, concatenated."""
    lengths: np.ndarray[Any, Any]
    """Tokens of each item, int64 (N,)."""
    keys: np.ndarray[Any, Any]
    """Split keys, uint64 (N,), evenly distributed; near-copies share one."""
    copy_keys: np.ndarray[Any, Any]
    """Keys that copies of an item share, uint64 (N, K); K is 0 if copies are not dropped."""
    num_characters: np.ndarray[Any, Any]
    """Characters of each item's cleaned text, int64 (N,)."""
    num_bytes: np.ndarray[Any, Any]
    """UTF-8 bytes of each item's cleaned text, int64 (N,)."""
    num_raw_bytes: np.ndarray[Any, Any]
    """UTF-8 bytes of each item before cleaning, int64 (N,)."""
    report: SourceReport
    """What was dropped and why, and what cleaning changed; kept items are counted later."""

    def taking(self, is_taken: np.ndarray[Any, Any]) -> "EncodedChunk":
        """Return the items that a mask, bool (N,), selects; the report stays that of all items."""
        arrays = ("lengths", "keys", "copy_keys", "num_characters", "num_bytes", "num_raw_bytes")
        taken: dict[str, Any] = {name: getattr(self, name)[is_taken] for name in arrays}
        return dataclasses.replace(self, ids=self.ids[np.repeat(is_taken, self.lengths)], **taken)


class _EncodedItem(NamedTuple):
    ids: np.ndarray[Any, Any]
    beginning: str
    copy_keys: np.ndarray[Any, Any]
    num_characters: int
    num_bytes: int
    num_raw_bytes: int


def encode_block(
    block: Block,
    *,
    source: Source,
    tokenizer: Tokenizer,
    config: DataConfig,
    openings: tuple[str, ...],
) -> EncodedChunk:
    """Parse, filter, clean and encode a block in a worker; see `encode_chunk`."""
    items = read_items(block, source, skip_bad=config.bad_records == "skip")
    chunk = encode_chunk(items, tokenizer, config, openings=openings)
    chunk.report.notes += block.notes
    return chunk


def encode_chunk(
    items: Iterable[Item | None],
    tokenizer: Tokenizer,
    config: DataConfig,
    *,
    openings: tuple[str, ...] = (),
) -> EncodedChunk:
    """Encode items, without those that are filtered out or contain no text.

    Args:
        items: Documents or conversations; `None` stands for a record that could not be read.
        tokenizer: Encloses documents in its special tokens; conversations are not enclosed.
        config: Which documents to drop (conversations never are), whether to compose accents, and
            the seed of the split keys.
        openings: Common beginnings, which do not count for split keys.
    """
    kept: list[_EncodedItem] = []
    keys: list[int] = []
    report = SourceReport(source="", seed=config.seed)
    for item in items:
        if item is None:
            encoded: _EncodedItem | str = UNREADABLE
        elif isinstance(item, Conversation):
            encoded = _encode_conversation(item, tokenizer, config, report)
        else:
            encoded = _encode_document(item, tokenizer, config, report)
        if isinstance(encoded, str):
            report.drop(encoded)
        else:
            kept.append(encoded)
            keys.append(split_key(encoded.beginning, seed=config.seed, openings=openings))
    num_keys = num_duplicate_keys(config.quality)
    no_keys = np.zeros((0, num_keys), dtype=np.uint64)
    return EncodedChunk(
        ids=np.concatenate([np.zeros(0, tokenizer.dtype), *(item.ids for item in kept)]),
        lengths=np.array([len(item.ids) for item in kept], dtype=np.int64),
        keys=np.array(keys, dtype=np.uint64),
        copy_keys=np.concatenate([no_keys, *(item.copy_keys[None] for item in kept)]),
        num_characters=np.array([item.num_characters for item in kept], dtype=np.int64),
        num_bytes=np.array([item.num_bytes for item in kept], dtype=np.int64),
        num_raw_bytes=np.array([item.num_raw_bytes for item in kept], dtype=np.int64),
        report=report,
    )


def _encode_document(
    document: str, tokenizer: Tokenizer, config: DataConfig, report: SourceReport
) -> _EncodedItem | str:
    """Return a document's ids, or why it is dropped.

    A long document is encoded in pieces, because encoding takes several times its size of memory.
    Its copies are recognised by its first piece only.
    """
    if _is_short(document, config.min_document_characters):
        return TOO_SHORT
    if reason := reason_to_drop(document, config.quality):
        return reason
    ids, beginning = [], ""
    num_characters = num_bytes = 0
    for text in _clean_pieces(document, tokenizer, compose_accents=config.compose_accents):
        ids.append(tokenizer.encode_array(text, clean=False))
        beginning = beginning or text
        num_characters += len(text)
        num_bytes += _num_bytes(text)
    report.observe(document, beginning)
    if not beginning:
        return EMPTY
    return _EncodedItem(
        ids=tokenizer.enclose(np.concatenate(ids)),
        beginning=beginning[:OPENING_CHARACTERS],
        copy_keys=duplicate_keys(beginning, config.quality),
        num_characters=num_characters,
        num_bytes=num_bytes,
        num_raw_bytes=_num_bytes(document),
    )


def _clean_pieces(document: str, tokenizer: Tokenizer, *, compose_accents: bool) -> Iterator[str]:
    """Yield pieces of a document, cleaned one by one; joined, they are the cleaned document.

    A piece ends at a single line end or space that a plain letter follows, where cleaning changes
    nothing. The piece is cleaned together with that letter, so that its end is not the end of a
    text.
    """
    start, space = 0, ""
    while start < len(document):
        match = _SAFE_CUT.search(document, start + _LONG_CHARACTERS)
        end = match.end() if match else len(document)
        piece = tokenizer.clean(document[start : end + 1], compose_accents=compose_accents)
        if match:
            piece = piece[:-1]
        # A space belongs to the word after it.
        is_open = bool(match) and piece.endswith(" ")
        text = space + (piece[:-1] if is_open else piece)
        if text:
            yield text
        start, space = end, " " if is_open else ""


def _encode_conversation(
    conversation: Conversation, tokenizer: Tokenizer, config: DataConfig, report: SourceReport
) -> _EncodedItem | str:
    """Return a conversation's ids, or why it is dropped.

    Messages of roles that the chat format omits are removed. A conversation with a message that
    cleaning empties is dropped, because it would teach the model to say nothing.
    """
    written = (message for message in conversation.messages if tokenizer.chat.role_of(message.role))
    conversation = dataclasses.replace(conversation, messages=tuple(written))
    if config.compose_accents:
        conversation = _composed(conversation)
    texts, beginning = _clean_conversation(conversation, tokenizer)
    text = "".join(texts)
    raw = "".join(message.text for message in conversation.stored)
    report.observe(raw, text)
    if not (texts and all(texts)):
        return EMPTY
    if isinstance(conversation, Preference) and texts[-2] == texts[-1]:
        return SAME_ANSWERS
    return _EncodedItem(
        ids=np.array(encode_conversation(conversation, tokenizer), dtype=tokenizer.dtype),
        beginning=beginning,
        copy_keys=np.zeros(num_duplicate_keys(config.quality), dtype=np.uint64),
        num_characters=len(text),
        num_bytes=_num_bytes(text),
        num_raw_bytes=_num_bytes(raw),
    )


def _composed(conversation: Conversation) -> Conversation:
    def compose(message: Message) -> Message:
        return dataclasses.replace(message, text=unicodedata.normalize("NFC", message.text))

    messages = tuple(map(compose, conversation.messages))
    if isinstance(conversation, Preference):
        return Preference(messages=messages, rejected=compose(conversation.rejected))
    return Conversation(messages=messages)


def _clean_conversation(conversation: Conversation, tokenizer: Tokenizer) -> tuple[list[str], str]:
    """Return the cleaned messages, and their beginning without system prompts.

    System prompts do not count for split keys, because a few of them open all conversations of a
    source. Nor do the answers of a preference: all pairs of one question are in one split.
    """
    texts = [tokenizer.clean(message.text) for message in conversation.stored]
    roles = [message.role for message in conversation.stored]
    keyed = roles[:-2] if isinstance(conversation, Preference) else roles
    said = "".join(text for role, text in zip(keyed, texts, strict=False) if role != "system")
    return texts, (said or "".join(texts))[:OPENING_CHARACTERS]


def clean_beginning(item: Item, tokenizer: Tokenizer, config: DataConfig) -> str:
    """Return the cleaned beginning of an item, from which its split key is computed."""
    if isinstance(item, str):
        beginning = item[:OPENING_CHARACTERS]
        return tokenizer.clean(beginning, compose_accents=config.compose_accents)
    item = _composed(item) if config.compose_accents else item
    return _clean_conversation(item, tokenizer)[1]


def _is_short(document: str, min_characters: int) -> bool:
    """Return whether a text is too short without blanks at its ends, without copying long texts."""
    beginning = document[:_LONG_CHARACTERS]
    return len(beginning.strip()) < min_characters and len(document.strip()) < min_characters


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
