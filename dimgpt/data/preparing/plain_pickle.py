"""Reads numbers, text, lists and dictionaries from a pickle, without executing it.

A pickle is a program for `pickle.Unpickler`. `pickletools` lists its instructions without executing
them. This file loads a pickle only if it consists of the few instructions that make plain values;
these import, call and build nothing. It also refuses values that occur twice (other than text) and
numbers beyond 64 bits. So the values are a tree, and take at most about 100 bytes for each byte of
the file.

Overriding `find_class` alone is not enough: it stops code, but not a forged number that allocates
gigabytes, or a list that contains itself.
"""

import io
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TEXT = {"SHORT_BINUNICODE", "BINUNICODE"}
_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_PUSH = _TEXT | _NUMBERS | {"NONE", "NEWTRUE", "NEWFALSE", "EMPTY_LIST", "EMPTY_DICT"}
_NUM_TAKEN = {"APPEND": 1, "SETITEM": 2, "APPENDS": None, "SETITEMS": None}
"""Values that an instruction moves into the one below them; `None` means all after the mark."""
_PUT, _GET = {"MEMOIZE", "BINPUT", "LONG_BINPUT"}, {"BINGET", "LONG_BINGET"}
# Python gathers lists and dictionaries by 1,000 items: only a forged file needs a longer stack.
_MAX_STACK = 16_384


class _PlainUnpickler(pickle.Unpickler):
    """Refuses all imports, in case a forbidden instruction passes `_check`."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is no plain value")


def read_plain_pickle(path: Path) -> Any:
    """Return the value of a pickle of protocol 2 to 5.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or holds anything but plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; copy it from the original's folder")
    content, place = path.read_bytes(), 0
    try:
        for found in _check(content):
            place = found
        return _PlainUnpickler(io.BytesIO(content)).load()
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(
            f"{path} is no list or dictionary of plain values (byte {place:,}, instruction "
            f"{content[place : place + 1]!r}): it is cut short, damaged or holds code, and none "
            "was run; copy it again"
        ) from error


def _check(content: bytes) -> Iterator[int]:
    """Simulate a pickle's instructions, and yield the position of each before it is checked.

    Raises:
        ValueError: An instruction is not allowed.
        IndexError: An instruction takes a value that is not there.
    """
    # The stack and the memo hold the name of the instruction that makes each value.
    stack: list[str] = []
    memo: list[str] = []
    marks: list[int] = []
    place = 0
    argument: Any
    for instruction, argument, found in pickletools.genops(content):
        name, place = instruction.name, found or 0
        yield place
        if name in _PUSH:
            stack.append(name)
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _NUM_TAKEN:
            num_taken = _NUM_TAKEN[name]
            start = len(stack) - num_taken if num_taken else marks.pop()
            if name.startswith("SETITEM") and not _TEXT.issuperset(stack[start::2]):
                raise ValueError("a key is no text")
            del stack[start:]
        elif name in _PUT:
            # The unpickler allocates as many memo entries as the highest index.
            if argument not in (None, len(memo)):
                raise ValueError("values are remembered out of order")
            memo.append(stack[-1])
        elif name in _GET:
            if memo[argument] not in _TEXT:
                raise ValueError("a value that is no text occurs twice")
            stack.append(memo[argument])
        elif name not in {"PROTO", "FRAME", "STOP"}:
            raise ValueError(f"{name} is not allowed")
        if isinstance(argument, int) and not -(1 << 63) <= argument < 1 << 63:
            raise ValueError("a number has more than 64 bits")
        if len(stack) + len(marks) > _MAX_STACK:
            raise ValueError("values are nested too deep")
    if marks or len(stack) != 1 or place != len(content) - 1:
        raise ValueError("the file does not end with its value")
