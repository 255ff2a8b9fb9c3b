"""Byte-level byte-pair encoding in a `tokenizer.json`, as in GPT-2, lilLM and Llama 3.

The `tokenizers` library does the encoding. This file finds the special tokens by their usual names
and prevents text from becoming one. Every byte is in the vocabulary, so no character is unknown.
Cleaning only removes lone surrogates, which UTF-8 cannot represent.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import tokenizers
from tokenizers.pre_tokenizers import ByteLevel

from dimgpt.text.special_tokens import SpecialTokens
from dimgpt.text.tokenizer import TOKENIZER_FILES, Tokenizer, read_tokenizer_file, reporting

LILLM_SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", *(f"<r{number}>" for number in range(13)))
TOYGPT_SPECIAL_TOKENS = ("<pad>", "<msk>", "<cls>", "<sep>", "<|startoftext|>")
"""What toyGPT adds to the vocabulary of GPT-2."""

_END_NAMES = ("<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "</s>", "<eos>", "<|eot_id|>")
_START_NAMES = ("<|startoftext|>", "<|begin_of_text|>", "<bos>")
_SEGMENT_CHARACTERS = 1 << 20
# All patterns of this family begin a word at a space between letters, so a text can be cut there.
_CUT = re.compile(r"(?<=[^\W\d_]) (?=[^\W\d_])")


class ByteLevelTokenizer(Tokenizer):
    """A `tokenizer.json`, able to encode and decode."""

    file_name = TOKENIZER_FILES["byte_level"]

    def __init__(self, content: str, *, source: str = "content") -> None:
        """Take the content of a `tokenizer.json`.

        Raises:
            ValueError: The content is no `tokenizer.json`, is not byte-level, or has no end-of-text
                token.
        """
        self._backend = _read(content, source)
        size = self._backend.get_vocab_size(with_added_tokens=True)
        self.tokens = tuple(map(self._backend.id_to_token, range(size)))
        if None in self.tokens:
            raise ValueError(
                f"{source} has no token of id {self.tokens.index(None)}: its ids have gaps; fetch "
                "it again"
            )
        added = self._backend.get_added_tokens_decoder()
        special = {token.content: id for id, token in sorted(added.items()) if token.special}
        self.special_tokens = _find_special_tokens(self._backend, special, source)
        self._backend.encode_special_tokens = True  # special tokens spelled in text stay text
        try:
            contents = [
                token.encode() if id in added else bytes(map(_BYTES.__getitem__, token))
                for id, token in enumerate(self.tokens)
            ]
        except KeyError as error:
            raise ValueError(
                f"{source} has {error} in a token: no letter of byte-level BPE; fetch it again"
            ) from None
        for id in special.values():
            contents[id] = b""
        self._bytes = tuple(contents)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a `tokenizer.json`, and `add_prefix_space` of a `tokenizer_config.json` beside it.

        Raises:
            FileNotFoundError, ValueError: As `Tokenizer.load`.
        """
        content = read_tokenizer_file(path).decode("utf-8", errors="replace")
        tokenizer = cls(content, source=str(path))
        if _asks_for_first_space(Path(path).with_name("tokenizer_config.json")):
            tokenizer._backend.pre_tokenizer = ByteLevel(add_prefix_space=True)
        return tokenizer

    def to_bytes(self) -> bytes:
        """Return the content of its file."""
        return self._backend.to_str().encode()

    def with_special_tokens(self, names: Sequence[str]) -> "ByteLevelTokenizer":
        """Return a tokenizer with further special tokens, with ids after the existing ones.

        Raises:
            ValueError: A name is a token already.
        """
        if taken := [name for name in names if name in self.tokens]:
            raise ValueError(
                f"{', '.join(taken)} are tokens already: text could spell them; choose other names"
            )
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        backend.add_special_tokens(list(names))
        return ByteLevelTokenizer(backend.to_str())

    def clean(self, text: str, *, compose_accents: bool = False) -> str:
        """Drop lone surrogates; with `compose_accents`, also compose accents (Unicode NFC)."""
        return _without_surrogates(unicodedata.normalize("NFC", text) if compose_accents else text)

    def encode_array(self, text: str, *, clean: bool = True) -> np.ndarray:
        """Encode as `encode`; text never becomes a special token."""
        if clean:
            text = self.clean(text)
        encode = partial(self._backend.encode, add_special_tokens=False)
        parts = [np.array(encode(part).ids, dtype=self.dtype) for part in _segments(text)]
        return np.concatenate(parts)

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[str], dict[str, Any]]:
        return type(self), (self._backend.to_str(),), {"chat_format": self.chat_format}


def train_byte_level(
    documents: Iterable[str],
    vocab_size: int,
    *,
    special_tokens: Sequence[str] = LILLM_SPECIAL_TOKENS,
    first_space: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ByteLevelTokenizer:
    """Train a byte-level vocabulary; the same documents give the same one.

    Sennrich et al. 2016, https://arxiv.org/abs/1508.07909, on bytes as in GPT-2.

    Args:
        documents: Raw texts.
        vocab_size: Number of tokens, special tokens and the 256 bytes included.
        special_tokens: Their names, in the order of their ids; one must end a text.
        first_space: Put a space before a text that has none, as lilLM does.
        progress: Called after each document with the number of characters read so far.

    Raises:
        ValueError: `vocab_size` has no room for bytes and special tokens, or the documents give
            fewer tokens.
    """
    if vocab_size < (smallest := len(_BYTES) + len(special_tokens)):
        raise ValueError(f"vocab_size is {vocab_size}: it must be at least {smallest}; raise it")
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = ByteLevel(add_prefix_space=first_space)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=sorted(_BYTES),
        show_progress=False,
    )
    texts = (_without_surrogates(document) for document in reporting(documents, progress))
    backend.train_from_iterator(texts, trainer)
    tokenizer = ByteLevelTokenizer(backend.to_str(), source="the new vocabulary")
    if tokenizer.vocab_size < vocab_size:
        raise ValueError(
            f"vocab_size is {vocab_size}: the documents give only {tokenizer.vocab_size} tokens; "
            "give more text or lower vocab_size"
        )
    return tokenizer


def _without_surrogates(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", errors="ignore").decode()
    return text


def _read(content: str, source: str) -> Any:
    try:
        backend = tokenizers.Tokenizer.from_str(content)
        description = json.loads(content)
    except Exception as error:  # the library raises no narrower one
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{source} is no tokenizer.json ({reason}): fetch it again") from None
    if description["model"].get("type") != "BPE" or "ByteLevel" not in json.dumps(
        [description.get("pre_tokenizer"), description.get("decoder")]
    ):
        raise ValueError(
            f"{source} is a {description['model'].get('type')} tokenizer: only byte-level BPE, as "
            "GPT-2's and lilLM's, can be opened"
        )
    backend.no_padding()
    backend.no_truncation()
    return backend


def _find_special_tokens(backend: Any, ids: dict[str, int], source: str) -> SpecialTokens:
    """Assign the special tokens by their usual names; `ids` has all of them."""
    inserted = backend.encode("a", add_special_tokens=True).ids[:1]
    starts = [ids[name] for name in _START_NAMES if name in ids]
    starts += [id for id in inserted if id in ids.values()]
    ends = [ids[name] for name in _END_NAMES if name in ids]
    if not ends:
        raise ValueError(
            f"{source} has none of the special tokens that end a text ({', '.join(_END_NAMES)}): "
            "add one"
        )
    unknown = ids.get("<unk>")
    return SpecialTokens(
        unknown=unknown,
        padding=ids.get("<pad>", unknown),
        start_of_text=starts[0] if starts else None,
        human=None,
        system=None,
        user=None,
        assistant=None,
        end_of_text=ends[0],
        others=tuple(ids.values()),
    )


def _asks_for_first_space(config_path: Path) -> bool:
    if not config_path.is_file():
        return False
    try:
        return json.loads(config_path.read_bytes()).get("add_prefix_space") is True
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{config_path} is damaged ({error}): fetch it again") from None


def _segments(text: str) -> Iterator[str]:
    """Split a long text between words, because the library needs a hundred bytes a character."""
    start = 0
    while len(text) - start > _SEGMENT_CHARACTERS:
        cut = _CUT.search(text, start + _SEGMENT_CHARACTERS)
        if cut is None:
            break
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def _byte_characters() -> dict[str, int]:
    """Return the printable character that stands for each byte in a `tokenizer.json`.

    Printable bytes are themselves; the others follow from U+0100 on (Radford et al. 2019, GPT-2).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    characters = {chr(byte): byte for byte in printable}
    return characters | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _byte_characters()
