"""dimgpt's cleaning of text, in the forms that other programs read.

The character maps of SentencePiece are compiled here, because the ids must be exactly the same and
no required package writes such maps. A map is the length of a double-array trie in bytes, the trie
in units of 32 bits as in the Darts-clone library, then the replacements, each closed by a zero
byte. The `Precompiled` normaliser of a `tokenizer.json` and the unigram tokenizer of a GGUF file
read it.
"""

import itertools
import struct
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from tokenizers import Regex, normalizers
from tokenizers.normalizers import Replace

from dimgpt.text.alphabet import ALPHABET, CIRCLED_DIGITS, REPLACEMENTS, STAND_INS
from dimgpt.text.cleaning import transliterate

# The library looks up a character together with the signs on it, and finds the first one only. This
# sign joins the character after it.
_JOINS_NEXT = "\N{ARABIC END OF AYAH}"
_OTHER_SIGNS = "\uff9e\uff9f"  # the half-width voiced sound marks
_END_OF_TABLES = 0x20000  # unidecode writes nothing for characters beyond
# Alphabets, signs and emoji. Readers create an object per byte of the table, so the writing systems
# of East Asia, four fifths of it, are left out and become unknown tokens.
_CLEANED_CODES = (
    range(1, 0x2E80),
    range(0xFB00, 0xFB50),
    range(0xFE00, 0xFE10),
    range(0xFF00, 0xFFF0),
    range(0x1F000, 0x20000),
)
_HAS_VALUE = 1 << 8
_IS_VALUE = 1 << 31
_MAX_OFFSET = 1 << 21
_BLOCK = 256

_Node = dict[int, Any]
"""Byte -> child node; 0 -> the value of the key that ends here."""


@cache
def transliterations() -> dict[str, str]:
    """Return the spelling of each character outside the alphabet, without dropped characters."""
    allowed = {*ALPHABET, "\t", "\n", "\r"}
    characters = (chr(code) for code in range(_END_OF_TABLES) if not 0xD800 <= code < 0xE000)
    pairs = ((letter, transliterate(letter)) for letter in characters if letter not in allowed)
    return {letter: text for letter, text in pairs if text}


def normalizer_steps() -> list[normalizers.Normalizer]:
    """Return the steps of `normalize_text` for the `tokenizers` library."""
    table = transliterations()
    signs = {
        letter: text
        for letter, text in table.items()
        if unicodedata.category(letter).startswith("M") or letter in _OTHER_SIGNS
    }
    digits = {digit: transliterate(digit) for digit in CIRCLED_DIGITS}
    return [
        *(
            Replace(source, target)
            for rules in ({"\r": ""}, REPLACEMENTS, digits, STAND_INS)
            for source, target in rules.items()
        ),
        Replace(Regex(f"[^{character_class([*ALPHABET, *table])}\\t\\n]"), ""),
        Replace(_JOINS_NEXT, table[_JOINS_NEXT]),
        normalizers.Precompiled(compile_charsmap(signs)),
        normalizers.Precompiled(compile_charsmap(table)),
        Replace(Regex(r" +\n"), "\n"),
        Replace(Regex(r"\t+\n"), "\n"),
        Replace(Regex(r"\n{3,}"), "\n\n"),
        normalizers.Strip(),
    ]


def character_class(characters: Iterable[str]) -> str:
    """Write characters as the content of a character class of a regular expression."""
    ranges: list[list[int]] = []
    for code in sorted(map(ord, set(characters))):
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(rf"\x{{{low:x}}}-\x{{{high:x}}}" for low, high in ranges)


@cache
def cleaning_charsmap() -> bytes:
    """Return the character map that cleans a text almost as `clean_text` does.

    The program that reads the map replaces the longest sequence at each position, once. Unlike
    `clean_text`, the map keeps emoji, and does not drop spaces at the ends of lines and texts.
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


def compile_charsmap(replacements: Mapping[str, str]) -> bytes:
    """Compile a table. If keys begin alike, its readers use the longest, or only the first.

    Raises:
        ValueError: A key is empty, a zero byte is in the table, or the table is too large.
    """
    texts = sorted(set(replacements.values()))
    if "" in replacements or any("\0" in text for text in [*replacements, *texts]):
        raise ValueError("a key is empty or holds a zero byte: leave it out of the table")
    offsets, pool = {}, bytearray()
    for text in texts:
        offsets[text] = len(pool)
        pool += text.encode() + b"\0"
    root: _Node = {}
    for key, text in replacements.items():
        node = root
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = offsets[text]
    units = _double_array(root)
    trie = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(trie)) + trie + bytes(pool)


def _double_array(root: _Node) -> list[int]:
    """Assign a place to every node; the child for byte b of a node with base B is at B ^ b.

    Nodes with children get blocks of their own, most of 64 places, because all bytes but the first
    of a character lie in 0x80..0xBF. Values then fill the gaps. No two nodes share a base.
    """
    units = {0: 0}
    bases: set[int] = set()
    waiting, ends = [(0, root)], []
    size = _BLOCK  # the root is alone in the first block
    while waiting:
        place, node = waiting.pop()
        if node.keys() == {0}:
            ends.append((place, node[0]))
            continue
        if all(byte >> 6 == 0b10 for byte in node):
            base = size ^ 0x80
            size += 64
        else:
            base = -(-size // _BLOCK) * _BLOCK
            size = base + _BLOCK
        bases.add(base)
        _link(units, place, base, has_value=0 in node)
        for byte, child in node.items():
            if byte == 0:
                units[base] = _IS_VALUE | child
            else:
                units[base ^ byte] = byte
                waiting.append((base ^ byte, child))
    free = (place for place in itertools.count(1) if place not in units and place not in bases)
    for place, value in ends:
        base = next(free)
        _link(units, place, base, has_value=True)
        units[base] = _IS_VALUE | value
    size = (max(*units, *bases) // _BLOCK + 1) * _BLOCK  # any byte is looked up from any base
    return [units.get(place, 0) for place in range(size)]


def _link(units: dict[int, int], place: int, base: int, *, has_value: bool) -> None:
    """Store the base of the children of the node at `place`."""
    offset = place ^ base
    if offset >= _MAX_OFFSET:
        raise ValueError(f"the table needs {base} places: it is too large; shorten it")
    units[place] |= offset << 10 | (_HAS_VALUE if has_value else 0)
