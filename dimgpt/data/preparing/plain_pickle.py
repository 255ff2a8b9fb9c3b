"""Reads numbers, text, lists and dictionaries from a pickle, without running what it holds.

A pickle is a program for `pickle.Unpickler`. `pickletools` lists its instructions and runs none.
This file loads a pickle only if all of them are among the few that make plain values: those import,
call and build nothing. It also refuses values that occur twice (other than text) and numbers beyond
64 bits. So the values are a tree, and take at most about 100 bytes for each byte of the file.

Why not only `find_class`: it stops code, but not a forged number that asks for gigabytes, or a list
that holds itself.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

_TEXT = {"SHORT_BINUNICODE", "BINUNICODE"}
_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
_PUSH = _TEXT | _NUMBERS | {"NONE", "NEWTRUE", "NEWFALSE", "EMPTY_LIST", "EMPTY_DICT"}
_PUT, _GET = {"MEMOIZE", "BINPUT", "LONG_BINPUT"}, {"BINGET", "LONG_BINGET"}
# Python gathers lists and dictionaries by 1,000 items: only a forged file needs a longer stack.
_MAX_STACK = 16_384


class _PlainUnpickler(pickle.Unpickler):
    """A second lock: it imports nothing, whatever a pickle asks for."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is no plain value")


def read_plain_pickle(path: Path) -> Any:
    """Return the value of a pickle of protocol 2 to 5.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or holds anything but plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; copy it from the original's data folder")
    content, place, stack = path.read_bytes(), 0, _Stack()
    try:
        for instruction, argument, found in pickletools.genops(content):
            place = found or 0
            stack.follow(instruction.name, argument)
        if stack.marks or len(stack.makers) != 1 or place != len(content) - 1:
            raise ValueError("the file does not end where its value does")
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


class _Stack:
    """The unpickler's stack and memo, with the name of the instruction that makes each value."""

    def __init__(self) -> None:
        self.makers: list[str] = []
        self.marks: list[int] = []
        self.memo: list[str] = []

    def follow(self, name: str, argument: Any) -> None:
        """Do what an instruction does to the stack.

        Raises:
            ValueError: It is not allowed.
            IndexError: It takes what is not there.
        """
        if name in _PUSH:
            self.makers.append(name)
        elif name == "MARK":
            self.marks.append(len(self.makers))
        elif name in {"APPEND", "APPENDS", "SETITEM", "SETITEMS"}:
            num_taken = {"APPEND": 1, "SETITEM": 2}.get(name)
            start = len(self.makers) - num_taken if num_taken else self.marks.pop()
            if name.startswith("SETITEM") and not _TEXT.issuperset(self.makers[start::2]):
                raise ValueError("a key is no text")
            del self.makers[start:]
        elif name in _PUT:
            # The unpickler reserves memory for as many values as the highest number says.
            if argument not in (None, len(self.memo)):
                raise ValueError("values are remembered out of order")
            self.memo.append(self.makers[-1])
        elif name in _GET:
            if self.memo[argument] not in _TEXT:
                raise ValueError("a value that is no text occurs twice")
            self.makers.append(self.memo[argument])
        elif name not in {"PROTO", "FRAME", "STOP"}:
            raise ValueError(f"{name} is not allowed")
        if isinstance(argument, int) and not -(1 << 63) <= argument < 1 << 63:
            raise ValueError("a number has more than 64 bits")
        if len(self.makers) + len(self.marks) > _MAX_STACK:
            raise ValueError("values are nested too deep")
