"""A table of replacements as the compiled character map of SentencePiece.

Compiled by hand: the ids in other programs must be exactly ours, and no package that we need writes
such a map. The `Precompiled` normaliser of a `tokenizer.json` and the unigram tokenizer of a GGUF
file read it: the length of a double-array trie in bytes, the trie in units of 32 bits, then the
replacements, each closed by a zero byte. A unit is laid out as in the Darts-clone library; the trie
here is built for keys of whole characters in UTF-8. Nothing here knows what is replaced.
"""

import itertools
import struct
from collections.abc import Mapping
from typing import Any

_HAS_VALUE = 1 << 8
_IS_VALUE = 1 << 31
_MAX_OFFSET = 1 << 21
_BLOCK = 256

_Node = dict[int, Any]
"""Byte -> the node behind it; 0 -> the value of the key that ends here."""


def compile_charsmap(replacements: Mapping[str, str]) -> bytes:
    """Compile a table; where keys begin alike, its readers take the longest, or only the first.

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
    """Give every node a place; the child for byte b of a node with base B is at B ^ b.

    Nodes with children get blocks of their own, most of 64 places, since all bytes but the first of
    a character lie in 0x80..0xBF; values then fill the gaps. No two nodes share a base.
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
    """Write where the children of the node at `place` are."""
    offset = place ^ base
    if offset >= _MAX_OFFSET:
        raise ValueError(f"the table needs {base} places: it is too large; shorten it")
    units[place] |= offset << 10 | (_HAS_VALUE if has_value else 0)
