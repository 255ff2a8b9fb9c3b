"""The interface of all tokenizers: text to ids, ids to text.

Two kinds implement it: `greedy_tokenizer.py`, DimensionGPT's list of tokens, and `byte_level.py`,
the `tokenizer.json` of lilLM and GPT-2. `Tokenizer.load` opens a file of either kind. Text never
becomes a special token: code that needs one inserts its id.
"""

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from dimgpt.files import replace_file
from dimgpt.text.chat_format import CHAT_FORMATS, ChatFormat, ChatIds, find_chat_format
from dimgpt.text.special_tokens import SpecialTokens

TOKENIZER_FILES = {"greedy": "vocab.txt", "byte_level": "tokenizer.json"}
"""Kind of a tokenizer -> name of its file in a folder."""


class Tokenizer(ABC):
    """A vocabulary that encodes and decodes."""

    file_name: ClassVar[str]
    """Name of its file in a model folder."""
    tokens: tuple[str, ...]
    """Spelled as in the file, in the order of their ids."""
    special_tokens: SpecialTokens
    _bytes: tuple[bytes, ...]
    """UTF-8 bytes of each id in a decoded text."""

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Open any tokenizer file: a `.json`, or a vocabulary of DimensionGPT under another name.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is no tokenizer.
        """
        from dimgpt.text.byte_level import ByteLevelTokenizer  # both kinds import this file
        from dimgpt.text.greedy_tokenizer import GreedyTokenizer

        if Path(path).suffix != ".json":
            return GreedyTokenizer.load(path)
        return GreedyTokenizer.load_exported(path) or ByteLevelTokenizer.load(path)

    @abstractmethod
    def to_bytes(self) -> bytes:
        """Return the content of its file."""

    @abstractmethod
    def clean(self, text: str, *, compose_accents: bool = False) -> str:
        """Rewrite a text with the characters that the tokenizer knows."""

    @abstractmethod
    def encode_array(self, text: str, *, clean: bool = True) -> np.ndarray:
        """Encode as `encode`, into an array of `dtype`."""

    def token_bytes(self, id: int) -> bytes:
        """Return the UTF-8 bytes of one id in a decoded text; they may end within a character."""
        return self._bytes[id] if 0 <= id < len(self._bytes) else b""

    def byte_counts(self) -> np.ndarray:
        """Return how many UTF-8 bytes of cleaned text each id stands for, int32 (vocab_size,)."""
        return np.array(list(map(len, self._bytes)), dtype=np.int32)

    @functools.cached_property
    def special_ids(self) -> dict[str, int]:
        """Name -> id of the special tokens; DimensionGPT's tab and new line are not among them."""
        special = self.special_tokens
        ids = sorted({*special.never_produced, special.end_of_text})
        return {self.tokens[id]: id for id in ids}

    @functools.cached_property
    def chat_format(self) -> ChatFormat | None:
        """The chat format: that of `use_chat_format`, else recognised by its special tokens."""
        return find_chat_format(self.special_ids)

    @functools.cached_property
    def chat(self) -> ChatIds:
        """The chat format bound to this tokenizer's ids.

        Raises:
            ValueError: The tokenizer has the special tokens of no format.
        """
        if self.chat_format is None:
            raise ValueError(
                f"this tokenizer can write no conversation: its special tokens are "
                f"{', '.join(self.special_ids)}, a chat format needs those of one of "
                f"{', '.join(CHAT_FORMATS)}; complete texts with it, or take another tokenizer"
            )
        return ChatIds(self.chat_format, self.special_ids, self.encode)

    @property
    def stops(self) -> tuple[int, ...]:
        """Ids that end an answer; none without a chat format."""
        return () if self.chat_format is None else self.chat.stops

    def use_chat_format(self, name: str) -> None:
        """Select a chat format of `CHAT_FORMATS`.

        Raises:
            ValueError: It is unknown, or the tokenizer lacks its special tokens.
        """
        if name not in CHAT_FORMATS:
            raise ValueError(f"chat format is {name!r}: it must be {', '.join(CHAT_FORMATS)}")
        self.chat = ChatIds(CHAT_FORMATS[name], self.special_ids, self.encode)
        self.chat_format = CHAT_FORMATS[name]

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special tokens included."""
        return len(self.tokens)

    def require_vocab_size(
        self, wanted: int, *, source: object = "the tokenizer", model: str = "the model"
    ) -> None:
        """Raise an error unless the vocabulary has the `wanted` number of tokens.

        Raises:
            ValueError: The numbers differ; the message calls the two `source` and `model`.
        """
        if self.vocab_size != wanted:
            raise ValueError(
                f"{source} has {self.vocab_size:,} tokens, {model} {wanted:,}: take the tokenizer "
                "that it was trained with"
            )

    @property
    def dtype(self) -> np.dtype:
        """The smallest type that holds every id."""
        return np.dtype(np.uint16 if self.vocab_size <= 2**16 else np.uint32)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer's file, as 64 hexadecimal digits."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def save(self, path: Path | str) -> None:
        """Write the tokenizer's file; a reader sees the old file or the new one."""
        replace_file(Path(path), self.to_bytes())

    def encode(self, text: str, *, clean: bool = True) -> list[int]:
        """Turn text into ids; `clean=False` saves time for text that `clean` returned."""
        return self.encode_array(text, clean=clean).tolist()

    def encode_beginning(self, text: str) -> list[int]:
        """Encode the beginning of a document, with the start-of-text token if there is one."""
        return self.enclose(self.encode_array(text))[:-1].tolist()

    def enclose(self, ids: np.ndarray) -> np.ndarray:
        """Put the start-of-text and end-of-text tokens around a document's ids, (T,)."""
        start, end = self.special_tokens.start_of_text, self.special_tokens.end_of_text
        edges = ([] if start is None else [start], ids, [end])
        return np.concatenate([np.asarray(edge, dtype=self.dtype) for edge in edges])

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids into readable text; ids outside the vocabulary are skipped."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_text(self, id: int) -> str:
        """Return the decoded text of one id."""
        return self.decode([id])


def read_tokenizer_file(path: Path | str) -> bytes:
    """Return the content of a tokenizer file.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no tokenizer at {path}: run create_data.ipynb, which makes it, or give the path of a "
            "vocab.txt or a tokenizer.json"
        )
    return Path(path).read_bytes()


def reporting(documents: Iterable[str], progress: Callable[[int], None] | None) -> Iterator[str]:
    """Yield documents; after each, `progress` gets the number of characters read so far."""
    num_characters = 0
    for document in documents:
        yield document
        num_characters += len(document)
        if progress is not None:
            progress(num_characters)
