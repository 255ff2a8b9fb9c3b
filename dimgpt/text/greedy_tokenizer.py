"""Turns text into token ids and back, with a vocabulary that is a list of tokens.

Encoding takes the longest token at each position of a word, from left to right. It is not byte-pair
encoding: no merges are stored, and any list of tokens works. Text never becomes a special token,
except tabs and line ends; code that needs one inserts its id.
"""

import json
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from dimgpt.text.cleaning import (
    cut_between_words,
    normalize_text,
    restore_text,
    split_at_spaces,
    split_words,
)
from dimgpt.text.special_tokens import (
    NEW_LINE,
    SPECIAL_TOKEN_TEXTS,
    SPECIAL_TOKENS,
    TAB,
    SpecialTokens,
)
from dimgpt.text.tokenizer import TOKENIZER_FILES, Tokenizer, read_tokenizer_file

MAX_TOKEN_CHARACTERS = 16
_MAX_REMEMBERED = 500_000  # about 120 MB
_MAX_REMEMBERED_CHARACTERS = 64


class GreedyTokenizer(Tokenizer):
    """A vocabulary of DimensionGPT.

    It caches the ids of words and stretches, up to a limit; copies for other processes start with
    empty caches.
    """

    file_name = TOKENIZER_FILES["greedy"]

    def __init__(self, tokens: Sequence[str], *, source: str = "tokens") -> None:
        """Take the ten special tokens and the others, in the order of their ids.

        Raises:
            ValueError: The special tokens are not the first ten, or a token is empty, repeated, or
                longer than 16 characters; the message names the line of `source`.
        """
        _check_tokens(tokens, source)
        self.tokens = tuple(tokens)
        self.special_tokens = SpecialTokens()
        # Ids are kept as the bytes of an array: joining them is the fastest way to encode.
        encoded_ids = (id.tobytes() for id in np.arange(len(tokens), dtype=self.dtype))
        encoded = dict(zip(tokens, encoded_ids, strict=True))
        self._encoded_tokens = {token: encoded[token] for token in tokens[len(SPECIAL_TOKENS) :]}
        self._encoded_tokens |= {"\t": encoded[TAB], "\n": encoded[NEW_LINE]}
        self._encoded_unknown = encoded[tokens[0]]
        self._encoded_words = _Memory(self._encode_word)
        self._encoded_stretches = _Memory(lambda stretch: self._encode_words(" " + stretch))
        texts = (*SPECIAL_TOKEN_TEXTS.values(), *map(restore_text, tokens[len(SPECIAL_TOKENS) :]))
        self._bytes = tuple(text.encode() for text in texts)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        r"""Read a vocabulary file: UTF-8, one token a line, joined by `\n`, no `\n` at the end.

        Raises:
            FileNotFoundError, ValueError: As `Tokenizer.load`.
        """
        try:
            text = read_tokenizer_file(path).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} is not UTF-8 at byte {error.start}: it is no vocabulary; give the path "
                "of a vocab.txt"
            ) from error
        return cls(text.split("\n"), source=str(path))  # strip nothing: tokens may end in spaces

    @classmethod
    def load_exported(cls, path: Path | str) -> Self | None:
        """Read the vocabulary in the `tokenizer.json` of an export; `None` for another kind.

        `transformers` keeps that file when it saves such a folder again, and drops `vocab.txt`.

        Raises:
            FileNotFoundError, ValueError: As `Tokenizer.load`.
        """
        try:
            ids = json.loads(read_tokenizer_file(path))["model"]["vocab"]
            tokens = sorted(ids, key=ids.__getitem__)
        except (ValueError, LookupError, TypeError, RecursionError):
            return None  # the reader of other kinds reports the error
        names = {"\t": TAB, "\n": NEW_LINE}
        tokens = [names.get(token, token) for token in tokens]
        if tuple(tokens[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS:
            return None
        return cls(tokens, source=str(path))

    def to_bytes(self) -> bytes:
        """Return the content of its file."""
        return "\n".join(self.tokens).encode()

    def clean(self, text: str, *, compose_accents: bool = False) -> str:
        """Rewrite a text in the alphabet, keeping tabs and line ends."""
        return normalize_text(text, compose_accents=compose_accents)

    def encode_array(self, text: str, *, clean: bool = True) -> np.ndarray:
        """Encode as `encode`; of the special tokens, text gives tab, new line and unknown only."""
        if clean:
            text = normalize_text(text)
        else:
            text = text.replace(TAB, "\t").replace(NEW_LINE, "\n")
        encoded = bytearray()
        for segment in cut_between_words(text):
            first, *others = split_at_spaces(segment)
            encoded += self._encode_words(first)
            encoded += b"".join(map(self._encoded_stretches.__getitem__, others))
        return np.frombuffer(encoded, dtype=self.dtype)

    def byte_counts(self) -> np.ndarray:
        """Return how many UTF-8 bytes of cleaned text each id stands for, int32 (vocab_size,).

        A tabulation, a line end and an unknown character count 1, other special tokens 0.
        """
        counts = np.array([len(token.encode()) for token in self.tokens], dtype=np.int32)
        counts[: len(SPECIAL_TOKENS)] = 0
        counts[[SPECIAL_TOKENS.index(name) for name in ("⮜unknown⮞", TAB, NEW_LINE)]] = 1
        return counts

    def _encode_words(self, text: str) -> bytes:
        return b"".join(map(self._encoded_words.__getitem__, split_words(text)))

    def _encode_word(self, word: str) -> bytes:
        encoded = bytearray()
        for piece in longest_matches(word, self._encoded_tokens):
            encoded += self._encoded_tokens.get(piece, self._encoded_unknown)
        return bytes(encoded)

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[tuple[str, ...]]]:
        return type(self), (self.tokens,)


def longest_matches(word: str, vocabulary: Container[str]) -> Iterator[str]:
    """Yield the longest token at each position of a word, or a single character if there is none.

    >>> list(longest_matches("chaton", {"chat", "on", "c", "cha"}))
    ['chat', 'on']
    """
    start = 0
    while start < len(word):
        piece = word[start : start + MAX_TOKEN_CHARACTERS]
        while len(piece) > 1 and piece not in vocabulary:
            piece = piece[:-1]
        yield piece
        start += len(piece)


class _Memory(dict[str, bytes]):
    """A cache of a function's results for short texts, with a limit."""

    def __init__(self, encode: Callable[[str], bytes]) -> None:
        super().__init__()
        self._encode = encode

    def __missing__(self, text: str) -> bytes:
        encoded = self._encode(text)
        if len(self) < _MAX_REMEMBERED and len(text) <= _MAX_REMEMBERED_CHARACTERS:
            self[text] = encoded
        return encoded


def _check_tokens(tokens: Sequence[str], source: str) -> None:
    """Raise a ValueError that names the first line that cannot be part of a vocabulary."""
    for line, name in enumerate(SPECIAL_TOKENS, start=1):
        token = tokens[line - 1] if line <= len(tokens) else ""
        if token != name:
            raise ValueError(
                f"{source}, line {line}: found {token!r} where every vocabulary has {name!r}; "
                "give the path of a vocab.txt, unchanged"
            )
    lines: dict[str, int] = {}
    for line, token in enumerate(tokens, start=1):
        if not token:
            fault = "is empty (the file must not end with a line end)"
        elif (first_line := lines.setdefault(token, line)) != line:
            fault = f"is already on line {first_line}"
        elif len(token) > MAX_TOKEN_CHARACTERS and line > len(SPECIAL_TOKENS):
            fault = f"has {len(token)} characters, and {MAX_TOKEN_CHARACTERS} are the most"
        elif set(token) & set("\t\n\r"):
            fault = "holds a tabulation or a line end"
        else:
            continue
        raise ValueError(
            f"{source}, line {line}: the token {token[:40]!r} {fault}; restore the file, or make "
            "it again with create_data.ipynb"
        )
