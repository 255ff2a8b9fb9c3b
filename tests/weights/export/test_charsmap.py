import functools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dimgpt.weights.export.charsmap import compile_charsmap

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)


@functools.lru_cache(maxsize=1)
def parse(charsmap: bytes) -> tuple[tuple[int, ...], bytes]:
    """Return the units of the trie, and the replacements."""
    (size,) = struct.unpack_from("<I", charsmap)
    return struct.unpack_from(f"<{size // 4}I", charsmap, 4), charsmap[4 + size :]


def read(charsmap: bytes, text: str, *, first: bool = False) -> str | None:
    """Look up what a text begins with, as SentencePiece does: the longest key, or the first."""
    units, pool = parse(charsmap)
    place, found = 0, None
    place ^= offset(units[0])
    for byte in text.encode():
        place ^= byte
        unit = units[place]  # a place outside the array would raise here, and crash the reader
        if unit & (1 << 31 | 0xFF) != byte:
            break
        place ^= offset(unit)
        if unit >> 8 & 1:
            start = units[place] & 0x7FFFFFFF
            found = pool[start : pool.index(b"\0", start)].decode()
            if first:
                break
    return found


def offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 1 << 9) >> 6)


@pytest.mark.slow
@given(table=st.dictionaries(TEXT.filter(bool), TEXT, min_size=1), probes=st.lists(TEXT))
@settings(max_examples=150, deadline=None)
def test_the_longest_key_is_found_and_nothing_else(table: dict[str, str], probes: list) -> None:
    charsmap = compile_charsmap(table)
    for probe in (*table, *probes, *(key + "a" for key in table)):
        keys = [key for key in table if probe.startswith(key)]
        expected = table[max(keys, key=len)] if keys else None
        assert read(charsmap, probe) == expected


def test_thousands_of_characters_take_little_room() -> None:
    table = {chr(code): f"<{code}>" for code in range(0x3000, 0x5000)}
    charsmap = compile_charsmap(table)
    assert all(read(charsmap, key) == text for key, text in table.items())
    (size,) = struct.unpack_from("<I", charsmap)
    assert size < 10 * len(table)


@pytest.mark.parametrize("table", [{"": "a"}, {"a\0": "b"}, {"a": "\0"}])
def test_what_the_format_cannot_hold_is_refused(table: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="empty or holds a zero byte"):
        compile_charsmap(table)
