"""A tokenizer as the entries of a GGUF file.

Byte-level BPE is GPT-2's there. llama.cpp has no greedy longest match, which a vocabulary of
DimensionGPT needs: its WordPiece drops accents and capitals, its RWKV tokenizer never ends on
characters outside the vocabulary, and the others merge pairs. Its unigram tokenizer comes nearest:
it cleans by a table, and with scores that favour few and long tokens it splits most words as
training did, but not all. Decoding is exact; for exact ids let dimgpt encode the text.
"""

import json
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

from dimgpt.text.alphabet import ALPHABET, CIRCLED_DIGITS, REPLACEMENTS, STAND_INS
from dimgpt.text.byte_level import ByteLevelTokenizer
from dimgpt.text.cleaning import restore_text, transliterate
from dimgpt.text.special_tokens import NEW_LINE, SPECIAL_TOKENS, TAB
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.export.charsmap import compile_charsmap
from dimgpt.weights.export.tokenizer_files import chat_template, transliterations

Entries = dict[str, Any]
"""Key of a GGUF file -> value."""

_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3
_SPACE = "▁"  # how unigram tokens write it
_LENGTH_BONUS = 0.01 / 16  # of the square; fewest tokens first, then the most uneven split
# Alphabets, signs and emoji. Readers take each byte of the table for an object: the writing systems
# of East Asia, four fifths of it, become unknown tokens there.
_CLEANED_CODES = (
    range(1, 0x2E80),
    range(0xFB00, 0xFB50),
    range(0xFE00, 0xFE10),
    range(0xFF00, 0xFFF0),
    range(0x1F000, 0x20000),
)
_GREEDY_NOTE = (
    "llama.cpp has no greedy longest-match tokenizer: it splits some words otherwise than in "
    "training, which costs quality. For exact results pass token ids that dimgpt's tokenizer made."
)
_FIRST_SPACE_NOTE = (
    "llama.cpp puts no space before a text, which this tokenizer was trained with: begin prompts "
    "with a space."
)


def tokenizer_entries(tokenizer: Tokenizer) -> tuple[Entries, tuple[str, ...]]:
    """Return the entries of a tokenizer, and what is different there, a sentence each.

    Raises:
        ValueError: It splits words in a way that GGUF has no name for.
    """
    if isinstance(tokenizer, ByteLevelTokenizer):
        entries, notes = _byte_level_entries(tokenizer)
    else:
        entries, notes = _greedy_entries(tokenizer.tokens), (_GREEDY_NOTE,)
    special_tokens = tokenizer.special_tokens
    start = special_tokens.start_of_text
    ids = {
        "bos": special_tokens.end_of_text if start is None else start,
        "eos": special_tokens.end_of_text,
        "eot": special_tokens.user,
        "unknown": special_tokens.unknown,
        "padding": special_tokens.padding,
    }
    entries |= {f"tokenizer.ggml.{name}_token_id": id for name, id in ids.items() if id is not None}
    entries["tokenizer.ggml.add_bos_token"] = start is not None
    entries["tokenizer.ggml.add_eos_token"] = False
    template = chat_template(tokenizer)
    if template is not None:
        entries["tokenizer.chat_template"] = _simplified(template, has_first_space=len(notes) > 0)
    return entries, notes


def _greedy_entries(tokens: Sequence[str]) -> Entries:
    spelled = {TAB: "\t", NEW_LINE: "\n"}
    types = [
        _UNKNOWN if id == 0 else _CONTROL if id < len(SPECIAL_TOKENS) else _NORMAL
        for id in range(len(tokens))
    ]
    for token in spelled:
        types[SPECIAL_TOKENS.index(token)] = _NORMAL
    texts = [
        token if id < len(SPECIAL_TOKENS) else restore_text(token).replace(" ", _SPACE)
        for id, token in enumerate(tokens)
    ]
    return {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [spelled.get(text, text) for text in texts],
        "tokenizer.ggml.scores": [-1.0 + _LENGTH_BONUS * len(token) ** 2 for token in tokens],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.precompiled_charsmap": cleaning_charsmap(),
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.remove_extra_whitespaces": False,
    }


@cache
def cleaning_charsmap() -> bytes:
    """Compile what cleaning does to each character and each sequence of the tables.

    Its reader takes the longest sequence at each place and reads no result again. Emoji come out
    as themselves, not as stand-ins. Line ends and edges are not cleaned.
    """
    table = {
        chr(code): transliterations().get(chr(code), "")
        for codes in _CLEANED_CODES
        for code in codes
        if unicodedata.category(chr(code)) not in ("Cn", "Co", "Cs")
    }
    for character in (*ALPHABET, "\t", "\n"):
        table.pop(character, None)
    table |= {digit: transliterate(digit) for digit in CIRCLED_DIGITS}
    emoji = {stand_in: emoji for emoji, stand_in in STAND_INS.items()}
    table |= {stand_in: text for stand_in, text in emoji.items() if stand_in not in CIRCLED_DIGITS}
    table |= {text: text for text in STAND_INS}
    return compile_charsmap(table | REPLACEMENTS)


def _byte_level_entries(tokenizer: ByteLevelTokenizer) -> tuple[Entries, tuple[str, ...]]:
    description = json.loads(tokenizer.to_bytes())
    pre_tokenizer = description["pre_tokenizer"] or {}
    if pre_tokenizer.get("type") != "ByteLevel" or not pre_tokenizer.get("use_regex", True):
        raise ValueError(
            f"the tokenizer splits words with {pre_tokenizer.get('type')}: only GPT-2's way has a "
            "name in GGUF; export with --to transformers"
        )
    special = {token["id"] for token in description["added_tokens"] if token["special"]}
    merges = description["model"]["merges"]
    entries = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": list(tokenizer.tokens),
        "tokenizer.ggml.token_type": [
            _CONTROL if id in special else _NORMAL for id in range(tokenizer.vocab_size)
        ],
        "tokenizer.ggml.merges": [
            merge if isinstance(merge, str) else " ".join(merge) for merge in merges
        ],
    }
    has_first_space = pre_tokenizer.get("add_prefix_space", False)
    return entries, (_FIRST_SPACE_NOTE,) if has_first_space else ()


def _simplified(template: str, *, has_first_space: bool) -> str:
    """Leave out the marks for training, and write the spaces that llama.cpp does not add."""
    for mark in ("{% generation %}", "{% endgeneration %}"):
        template = template.replace(mark, "")
    if has_first_space:
        for role in ("user", "assistant"):
            template = template.replace(f"<r0>{role}<r1>", f"<r0> {role}<r1> ")
    return template
