"""Documents and conversations to token ids: a pure function of each, without files or processes.

What an item becomes depends on the vocabulary and on the rules, on nothing before or after it; so
it may be done anywhere, in any order. Copies of earlier documents are only marked by their keys.
"""

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from dimgpt.config import DataConfig, QualityConfig
from dimgpt.data.block import Item
from dimgpt.data.conversation import Conversation, Message, encode_conversation
from dimgpt.data.quality import duplicate_keys, num_duplicate_keys, reason_to_drop
from dimgpt.data.report import SourceReport
from dimgpt.text.tokenizer import Tokenizer

UNREADABLE, TOO_SHORT, EMPTY = "unreadable", "too_short", "empty"
_KEY_CHARACTERS = 128


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
    if len(document.strip()) < rules.min_characters:
        return TOO_SHORT
    if reason := reason_to_drop(document, rules.quality):
        return reason
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


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
