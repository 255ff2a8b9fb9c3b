"""Lists and dictionaries of numbers and text from a pickle, without unpickling.

A pickle is a program. This file knows the few of its instructions that make plain values, and has
none that imports, calls or builds anything: whatever else a file asks for is refused by the byte
where it stands. A long list comes piece by piece, so that its records need not fit in memory. Not
read: values that occur twice, other than text, and numbers beyond 64 bits.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# What Python writes between two instructions that gather values, with room to spare.
_MAX_STACK = 4_096
_MAX_DEPTH = 8
_STOP = ord(".")


def read_plain_pickle(path: Path) -> Any:
    """Return the value of a small pickle.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or holds anything but plain values.
    """
    reader = _Reader(path, is_list=False)
    for _ in reader.pieces():
        pass
    return reader.value()


def iterate_plain_pickle(path: Path) -> Iterator[list[Any]]:
    """Yield the items of a pickled list, piece by piece.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, is no list, or holds anything but plain values; what came before
            has been yielded already.
    """
    reader = _Reader(path, is_list=True)
    yield from reader.pieces()
    if not isinstance(reader.value(), list):
        raise ValueError(f"{path} holds a {type(reader.value()).__name__}: it must be a list")


class _Reader:
    """Follows the instructions of one pickle.

    `stack` holds the values since the last mark, `below` the stacks under the marks.
    """

    def __init__(self, path: Path, *, is_list: bool) -> None:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; copy it from the original's data folder")
        self.path = path
        self.is_list = is_list
        self.content = path.read_bytes()
        self.place = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, str] = {}
        self.num_memoized = 0
        self.ready: list[Any] = []

    def pieces(self) -> Iterator[list[Any]]:
        """Follow the instructions to the end; with `is_list`, yield the outer list's items."""
        content, instructions, start = self.content, _INSTRUCTIONS, 0
        try:
            while (code := content[self.place]) != _STOP:
                start = self.place
                self.place = start + 1
                instructions[code](self)
                if len(self.stack) > _MAX_STACK:
                    raise ValueError("too many values waiting")
                if self.ready:
                    yield self.ready
                    self.ready = []
        except (IndexError, KeyError, ValueError, TypeError, struct.error) as error:
            reason = f"instruction {content[start : start + 1]!r}: {type(error).__name__}"
            raise ValueError(
                f"{self.path} is no list or dictionary of plain values (byte {start:,}, {reason}): "
                "it is cut short, damaged or holds code, and none was run; copy it again"
            ) from None
        if self.place != len(content) - 1 or len(self.stack) != 1 or self.below:
            raise ValueError(f"{self.path} does not end where its value does; copy it again")

    def value(self) -> Any:
        """Return what the pickle made."""
        return self.stack[0]

    def take(self, num_bytes: int) -> bytes:
        """Return the next bytes.

        Raises:
            IndexError: The file is too short.
        """
        end = self.place + num_bytes
        if end > len(self.content):
            raise IndexError(end)
        taken = self.content[self.place : end]
        self.place = end
        return taken

    def number(self, num_bytes: int, *, signed: bool = False) -> int:
        """Return the next bytes as a number."""
        return int.from_bytes(self.take(num_bytes), "little", signed=signed)

    def memoize(self, index: int) -> None:
        """Remember the last value if it is text; anything else is only counted."""
        self.num_memoized += 1
        value = self.stack[-1]
        if type(value) is str:
            self.memo[index] = value

    def mark(self) -> None:
        """Open a new stack."""
        if len(self.below) == _MAX_DEPTH:
            raise ValueError("too many values nested")
        self.below.append(self.stack)
        self.stack = []

    def gathered(self) -> list[Any]:
        """Return the values since the last mark, and close their stack."""
        values = self.stack
        self.stack = self.below.pop()
        return values

    def extend(self, values: list[Any]) -> None:
        """Add values to the list that is the last value."""
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError("no list")
        is_outer = self.is_list and not self.below and len(self.stack) == 1
        (self.ready if is_outer else target).extend(values)

    def set_items(self, values: list[Any]) -> None:
        """Add keys and values, in turn, to the dictionary that is the last value."""
        target = self.stack[-1]
        if not isinstance(target, dict) or len(values) % 2:
            raise TypeError("no dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str):
                raise TypeError("a key is no text")
            target[key] = value


def _push(make: Callable[[_Reader], Any]) -> Callable[[_Reader], None]:
    """Return an instruction that adds one value."""

    def push(reader: _Reader) -> None:
        reader.stack.append(make(reader))

    return push


def _byte(reader: _Reader) -> int:
    place = reader.place
    reader.place = place + 1
    return reader.content[place]


def _long(reader: _Reader) -> int:
    num_bytes = _byte(reader)
    if num_bytes > 8:
        raise ValueError("a number of more than 64 bits")
    return reader.number(num_bytes, signed=True)


def _append(reader: _Reader) -> None:
    value = reader.stack.pop()
    reader.extend([value])


def _set_item(reader: _Reader) -> None:
    value, key = reader.stack.pop(), reader.stack.pop()
    reader.set_items([key, value])


# The letters are those of Python's own pickletools, protocols 2 to 5.
_INSTRUCTIONS: dict[int, Callable[[_Reader], Any]] = {
    0x80: lambda reader: reader.take(1),  # protocol
    0x95: lambda reader: reader.take(8),  # length of a frame
    ord("]"): _push(lambda reader: []),
    ord("}"): _push(lambda reader: {}),
    ord("N"): _push(lambda reader: None),
    0x88: _push(lambda reader: True),
    0x89: _push(lambda reader: False),
    ord("K"): _push(_byte),
    ord("M"): _push(lambda reader: reader.number(2)),
    ord("J"): _push(lambda reader: reader.number(4, signed=True)),
    0x8A: _push(_long),
    ord("G"): _push(lambda reader: struct.unpack(">d", reader.take(8))[0]),
    0x8C: _push(lambda reader: reader.take(_byte(reader)).decode()),
    ord("X"): _push(lambda reader: reader.take(reader.number(4)).decode()),
    0x94: lambda reader: reader.memoize(reader.num_memoized),
    ord("q"): lambda reader: reader.memoize(_byte(reader)),
    ord("r"): lambda reader: reader.memoize(reader.number(4)),
    ord("h"): _push(lambda reader: reader.memo[_byte(reader)]),
    ord("j"): _push(lambda reader: reader.memo[reader.number(4)]),
    ord("("): _Reader.mark,
    ord("a"): _append,
    ord("e"): lambda reader: reader.extend(reader.gathered()),
    ord("s"): _set_item,
    ord("u"): lambda reader: reader.set_items(reader.gathered()),
}
