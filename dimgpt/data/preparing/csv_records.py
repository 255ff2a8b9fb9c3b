"""The header and the rows of CSV files: comma, semicolon or tabulation, quotes around line ends."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from dimgpt.data.preparing.block import MAX_RECORD_BYTES

_DELIMITERS = ",;\t"
_SURROGATES = "surrogateescape"


def read_header(content: bytes, name: str) -> tuple[tuple[str, ...], str, int]:
    """Read the first line of a file.

    Args:
        content: The beginning of the file, its first line at least.
        name: The file, for the error.

    Returns:
        The names of the columns, what stands between them, and the bytes of the line.

    Raises:
        ValueError: The line is empty, not UTF-8, or names a column twice.
    """
    line, end, _ = content.partition(b"\n")
    try:
        text = line.decode().strip("\r")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not UTF-8 at byte {error.start:,}; convert it, for example with iconv"
        ) from error
    delimiter = max(_DELIMITERS, key=text.count)
    names = tuple(next(csv.reader([text], delimiter=delimiter), []))
    if not all(names) or len(set(names)) < len(names) or not names:
        raise ValueError(
            f"{name}, line 1 is {text[:80]!r}: it must name every column, each once; add a header"
        )
    return names, delimiter, len(line) + len(end)


def read_rows(
    content: bytes, *, header: tuple[str, ...], delimiter: str
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield the rows of a block.

    Yields:
        The line at which the row ends, counted from 1 within the block, and its values by column,
        or what is wrong with it.
    """
    csv.field_size_limit(MAX_RECORD_BYTES)  # the module has one limit for all readers
    text = io.StringIO(content.decode(errors=_SURROGATES), newline="")
    rows = csv.reader(text, delimiter=delimiter)
    while True:
        try:
            values = next(rows, None)
        except csv.Error as error:
            yield rows.line_num, f"is no CSV ({error})"
            continue
        if values is None:
            return
        if not values:
            continue
        if len(values) != len(header):
            yield rows.line_num, f"has {len(values)} columns: the header has {len(header)}"
        elif not all(map(_is_utf8, values)):
            yield rows.line_num, "is not UTF-8"
        else:
            yield rows.line_num, dict(zip(header, values, strict=True))


def _is_utf8(value: str) -> bool:
    return value.isascii() or not any("\udc80" <= sign <= "\udcff" for sign in value)
