"""Documents and conversations to token ids: a pure function of each, without files or processes.

What an item becomes depends on the vocabulary and on the rules, on nothing before or after it; so
it may be done anywhere, in any order. Copies of earlier documents are only marked by their keys.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from dimgpt.config import DataConfig, QualityConfig
from dimgpt.data.conversations.conversation import Conversation, Message, encode_conversation
from dimgpt.data.preparing.blocks import Item
from dimgpt.data.preparing.quality import duplicate_keys, num_duplicate_keys, reason_to_drop
from dimgpt.data.preparing.report import SourceReport
from dimgpt.text.tokenizer import Tokenizer

UNREADABLE, TOO_SHORT, EMPTY = "unreadable", "too_short", "empty"
_KEY_CHARACTERS = 128
_LONG_CHARACTERS = 1 << 22
_SAFE_CUT = re.compile(r"(?<=[A-Za-z0-9.,])[\n ](?=[A-Za-z0-9])")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodingRules:
    """What encoding depends on besides the vocabulary."""

    min_characters: int
    """Shorter documents (stripped, before cleaning) are dropped; conversations never."""
    compose_accents: bool
    seed: int
    """Seed of the keys that decide on the split."""
    quality: QualityConfig = QualityConfig()
    """Which other documents are dropped, and whether copies are marked; conversations never."""

    @classmethod
    def of(cls, config: DataConfig) -> "EncodingRules":
        """Return the rules that a preparation follows."""
        return cls(
            min_characters=config.min_document_characters,
            compose_accents=config.compose_accents,
            seed=config.seed,
            quality=config.quality,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedChunk:
    """Encoded items, without those that were dropped."""

    ids: np.ndarray[Any, Any]
    """All of them, concatenated."""
    lengths: np.ndarray[Any, Any]
    """Tokens of each item, int64 (N,)."""
    keys: np.ndarray[Any, Any]
    """A number for each item that near-copies share, uint64 (N,), spread evenly."""
    copy_keys: np.ndarray[Any, Any]
    """Numbers by which copies of an item are known, uint64 (N, K); K is 0 if nobody asks."""
    num_characters: np.ndarray[Any, Any]
    """Characters of each item's cleaned text, int64 (N,)."""
    num_bytes: np.ndarray[Any, Any]
    """UTF-8 bytes of each item's cleaned text, int64 (N,)."""
    report: SourceReport
    """What was left out and why, and what cleaning changed; not yet what is kept."""

    @property
    def num_dropped(self) -> int:
        """Items that were left out."""
        return self.report.dropped.total()


class _EncodedItem(NamedTuple):
    ids: np.ndarray[Any, Any]
    key: int
    copy_keys: np.ndarray[Any, Any]
    num_characters: int
    num_bytes: int


def encode_chunk(
    items: Iterable[Item | None], tokenizer: Tokenizer, rules: EncodingRules
) -> EncodedChunk:
    """Encode items, leaving out those that are not to be kept, or hold no text.

    Args:
        items: Documents or conversations; `None` stands for a record that could not be read.
        tokenizer: Its special tokens enclose documents; conversations are not enclosed.
        rules: What to drop, and how.
    """
    kept: list[_EncodedItem] = []
    report = SourceReport(source="", seed=rules.seed)
    for item in items:
        if item is None:
            encoded: _EncodedItem | str = UNREADABLE
        elif isinstance(item, Conversation):
            encoded = _encode_conversation(item, tokenizer, rules, report)
        else:
            encoded = _encode_document(item, tokenizer, rules, report)
        if isinstance(encoded, str):
            report.drop(encoded)
        else:
            kept.append(encoded)
    num_keys = num_duplicate_keys(rules.quality)
    no_keys = np.zeros((0, num_keys), dtype=np.uint64)
    return EncodedChunk(
        ids=np.concatenate([np.zeros(0, tokenizer.dtype), *(item.ids for item in kept)]),
        lengths=np.array([len(item.ids) for item in kept], dtype=np.int64),
        keys=np.array([item.key for item in kept], dtype=np.uint64),
        copy_keys=np.concatenate([no_keys, *(item.copy_keys[None] for item in kept)]),
        num_characters=np.array([item.num_characters for item in kept], dtype=np.int64),
        num_bytes=np.array([item.num_bytes for item in kept], dtype=np.int64),
        report=report,
    )


def _encode_document(
    document: str, tokenizer: Tokenizer, rules: EncodingRules, report: SourceReport
) -> _EncodedItem | str:
    """Return a document's ids, or why it is dropped."""
    if _is_short(document, rules.min_characters):
        return TOO_SHORT
    if reason := reason_to_drop(document, rules.quality):
        return reason
    if len(document) > _LONG_CHARACTERS:
        return _encode_long_document(document, tokenizer, rules, report)
    text = tokenizer.clean(document, compose_accents=rules.compose_accents)
    report.observe(document, text)
    if not text:
        return EMPTY
    return _EncodedItem(
        ids=tokenizer.enclose(tokenizer.encode_array(text, clean=False)),
        key=split_key(text, seed=rules.seed),
        copy_keys=duplicate_keys(text, rules.quality),
        num_characters=len(text),
        num_bytes=_num_bytes(text),
    )


def _encode_long_document(
    document: str, tokenizer: Tokenizer, rules: EncodingRules, report: SourceReport
) -> _EncodedItem | str:
    """Do as for any document, piece by piece: a whole one would be in memory several times.

    Its beginning alone tells its copies.
    """
    ids, beginning = [], ""
    num_characters = num_bytes = 0
    for text in _clean_pieces(document, tokenizer, compose_accents=rules.compose_accents):
        ids.append(tokenizer.encode_array(text, clean=False))
        beginning = beginning or text
        num_characters += len(text)
        num_bytes += _num_bytes(text)
    report.observe(document, beginning)
    if not beginning:
        return EMPTY
    return _EncodedItem(
        ids=tokenizer.enclose(np.concatenate(ids)),
        key=split_key(beginning, seed=rules.seed),
        copy_keys=duplicate_keys(beginning, rules.quality),
        num_characters=num_characters,
        num_bytes=num_bytes,
    )


def _clean_pieces(document: str, tokenizer: Tokenizer, *, compose_accents: bool) -> Iterator[str]:
    """Yield the pieces of a cleaned text: joined, they are the whole text, cleaned.

    A piece ends where cleaning on both sides does not meet: at a line end or a space, alone,
    followed by a plain letter. It is cleaned with that letter, so that its own end is no edge.
    """
    start, space = 0, ""
    while start < len(document):
        match = _SAFE_CUT.search(document, start + _LONG_CHARACTERS)
        end = match.end() if match else len(document)
        piece = tokenizer.clean(document[start : end + 1], compose_accents=compose_accents)
        if match:
            piece = piece[:-1]
        # A space belongs to the word behind it.
        is_open = bool(match) and piece.endswith(" ")
        text = space + (piece[:-1] if is_open else piece)
        if text:
            yield text
        start, space = end, " " if is_open else ""


def _encode_conversation(
    conversation: Conversation, tokenizer: Tokenizer, rules: EncodingRules, report: SourceReport
) -> _EncodedItem | str:
    """Return a conversation's ids, or why it is dropped."""
    if rules.compose_accents:
        conversation = Conversation(
            messages=tuple(
                Message(role=message.role, text=unicodedata.normalize("NFC", message.text))
                for message in conversation.messages
            )
        )
    text = "".join(tokenizer.clean(message.text) for message in conversation.messages)
    report.observe("".join(message.text for message in conversation.messages), text)
    if not text:
        return EMPTY
    return _EncodedItem(
        ids=np.array(encode_conversation(conversation, tokenizer), dtype=tokenizer.dtype),
        key=split_key(text, seed=rules.seed),
        copy_keys=np.zeros(num_duplicate_keys(rules.quality), dtype=np.uint64),
        num_characters=len(text),
        num_bytes=_num_bytes(text),
    )


def split_key(text: str, *, seed: int) -> int:
    """Return a number below 2**64 that texts share whose beginnings differ in little.

    Case, spaces and punctuation do not count, nor does what follows 128 letters and digits.
    """
    # Twice the characters hold 128 letters and digits of any usual text.
    letters = filter(str.isalnum, text[: 2 * _KEY_CHARACTERS].lower())
    beginning = "".join(islice(letters, _KEY_CHARACTERS))
    digest = hashlib.blake2b(
        f"{seed} {beginning}".encode(errors="surrogatepass"), digest_size=8
    ).digest()
    return int.from_bytes(digest, "little")


def _is_short(document: str, min_characters: int) -> bool:
    """Tell whether a text is too short without its edges; long texts are not copied for it."""
    beginning = document[:_LONG_CHARACTERS]
    return len(beginning.strip()) < min_characters and len(document.strip()) < min_characters


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
