"""Decompresses files, cuts them into pieces of complete records, and parses the records.

Cutting is cheap and parsing is not: one process cuts, and many parse. A truncated file is an error,
not a shorter file.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

Record = dict[str, Any] | str
"""The values of a record, or what is wrong with it; the caller puts the place before that."""
Piece = tuple[bytes, int, int]
"""Bytes of complete records; number of lines or rows; bytes of the file that were read so far."""

MAX_RECORD_BYTES = 1 << 26
"""Longer lines are refused: parsing takes up to twelve times their size of memory."""
MAX_TEXT_BYTES = 1 << 28
"""Longer text files, or lists in a `.json` file, are refused."""
BOM = b"\xef\xbb\xbf"
"""Byte-order mark, which some programs write before UTF-8."""
_DELIMITERS = ",;\t"
_BEGINNING_BYTES, _BUFFER_BYTES = 1 << 16, 1 << 20
_NO_UTF8 = re.compile(r"[\udc80-\udcff]")  # `surrogateescape` turns bad bytes into these


def read_chunks(path: Path, *, chunk_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Yield the content of a file, decompressed, in chunks, all of `chunk_bytes` but the last.

    Yields:
        A chunk, and how many bytes of the file on the disk have been read so far.

    Raises:
        EOFError: The file is damaged.
    """
    try:
        with path.open("rb") as file:
            content = _decompress(file, path.suffix.lower())
            while chunk := content.read(chunk_bytes):
                yield chunk, file.tell()
    except (OSError, zlib.error) as error:
        if getattr(error, "errno", None) is not None:  # an error of the disk, not of the content
            raise
        raise EOFError(str(error)) from error


def _decompress(file: BinaryIO, suffix: str) -> Any:
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=file)
    if suffix == ".zst":
        import pyarrow

        return pyarrow.CompressedInputStream(file, "zstd")
    return file


def read_whole(path: Path, *, name: str, remedy: str) -> bytes:
    """Return the content of a file.

    Raises:
        ValueError: It is longer than `MAX_TEXT_BYTES`; the message ends with the remedy.
        EOFError: The file is damaged.
    """
    content = bytearray()
    for chunk, _ in read_chunks(path, chunk_bytes=_BUFFER_BYTES):
        content += chunk
        if len(content) > MAX_TEXT_BYTES:
            raise ValueError(f"{name} is longer than {MAX_TEXT_BYTES >> 20} MB; {remedy}")
    return bytes(content)


def cut_lines(
    path: Path, *, name: str, piece_bytes: int, has_quotes: bool = False, skip_long: bool = False
) -> Iterator[Piece]:
    """Cut a file at line ends.

    Args:
        path: The file.
        name: Its name, for the error.
        piece_bytes: Approximate size of a piece.
        has_quotes: Do not cut at line ends within double quotes.
        skip_long: Replace lines that are too long by a line that cannot be parsed.

    Raises:
        ValueError: A line is longer than `MAX_RECORD_BYTES`.
        EOFError: The file is damaged.
    """
    waiting = bytearray()
    first = place = 0
    is_skipping = False
    for chunk, place in read_chunks(path, chunk_bytes=piece_bytes):
        if is_skipping:
            _, line_end, rest = chunk.partition(b"\n")
            chunk, is_skipping = line_end + rest, not line_end
        waiting += chunk
        if b"\n" in chunk:
            end = _end_of_quoted_lines(waiting) if has_quotes else waiting.rfind(b"\n") + 1
            if end:
                piece = bytes(waiting[:end])
                del waiting[:end]
                num_lines = piece.count(b"\n")
                first += num_lines
                yield piece, num_lines, place
        if len(waiting) > MAX_RECORD_BYTES:
            if not skip_long:
                raise ValueError(
                    f"{name}: the record after line {first:,} is longer than "
                    f"{MAX_RECORD_BYTES >> 20} MB; look for a quote that is not closed, or cut it "
                    "into documents"
                )
            waiting[:], is_skipping = b"{ a line that is too long", True
    if waiting:
        yield bytes(waiting), 0, place


def _end_of_quoted_lines(content: bytearray) -> int:
    """Return the end of the last line that ends outside of quotes."""
    num_quotes = content.count(b'"')
    end = len(content)
    while (line_end := content.rfind(b"\n", 0, end)) >= 0:
        num_quotes -= content.count(b'"', line_end, end)
        if num_quotes % 2 == 0:
            return line_end + 1
        end = line_end
    return 0


def read_json_lines(content: bytes) -> Iterator[tuple[int, Record]]:
    """Yield the number of each line, from 1, and its record; skip blank lines."""
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            yield number, _parse_line(line)


def _parse_line(line: bytes) -> Record:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"is not JSON ({error})"
    if not isinstance(values, dict):
        return f"is a JSON {type(values).__name__}: it must be an object"
    return values


def json_form(path: Path) -> Literal["list", "lines", "other"]:
    """Return what a `.json` file contains, judged by its beginning.

    Raises:
        EOFError: The file is damaged.
    """
    beginning, _ = next(read_chunks(path, chunk_bytes=_BEGINNING_BYTES), (b"", 0))
    text = beginning.removeprefix(BOM).lstrip()
    if re.match(rb"\[\s*\{", text):
        return "list"
    line, line_end, rest = text.partition(b"\n")
    is_long = line.startswith(b"{") and not line_end and len(beginning) == _BEGINNING_BYTES
    is_first = bool(rest.strip()) and isinstance(_parse_line(line), dict)
    return "lines" if is_long or is_first else "other"


def split_json(content: bytes) -> Iterator[str]:
    r"""Yield the values of a JSON list, or the only value, each written on one line.

    >>> list(split_json(b'[{"a": 1},\n {"a":\n 2}]'))
    ['{"a": 1}', '{"a": 2}']

    Raises:
        ValueError, RecursionError: It is no JSON.
    """
    values = json.loads(content.decode("utf-8-sig").strip() or "[]")
    yield from map(json.dumps, values if isinstance(values, list) else [values])


def read_csv(content: bytes, *, header: bytes, name: str) -> Iterator[tuple[int, Record]]:
    """Yield the rows of a piece of a CSV file: comma, semicolon or tab, line ends within quotes.

    Args:
        content: Complete rows, without the header.
        header: First line of the file; gives the names of the columns and the delimiter.
        name: The file, for the error.

    Yields:
        The line at which the row begins, counted from 1 within the piece, and the row.

    Raises:
        ValueError: The header is empty, not UTF-8, or names a column twice.
    """
    csv.field_size_limit(MAX_RECORD_BYTES)  # one limit for all readers of the module
    columns, delimiter = _read_header(header, name)
    text = io.StringIO(content.decode(errors="surrogateescape"), newline="")
    rows = csv.reader(text, delimiter=delimiter)
    while True:
        line = rows.line_num + 1
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, f"is not CSV ({error})"
            continue
        if values and len(values) != len(columns):
            num_lines = rows.line_num - line + 1
            quoted = f"; its quotes join {num_lines} lines into one row" * (num_lines > 1)
            yield line, f"has {len(values)} columns: the header has {len(columns)}{quoted}"
        elif any(map(_NO_UTF8.search, values)):
            yield line, "is not UTF-8"
        elif values:
            yield line, dict(zip(columns, values, strict=True))


def _read_header(header: bytes, name: str) -> tuple[list[str], str]:
    """Return the names of the columns, and the delimiter: the one that gives most columns."""
    try:
        line = header.decode().strip("\r")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not UTF-8 at byte {error.start:,}; convert it, for example with iconv"
        ) from error
    rows = {sign: next(csv.reader([line], delimiter=sign), []) for sign in _DELIMITERS}
    delimiter = max(rows, key=lambda sign: len(rows[sign]))
    columns = rows[delimiter]
    # `DataFrame.to_csv()` writes the index as a first column without a name.
    if not any(columns) or not all(columns[1:]) or len(set(columns)) < len(columns):
        raise ValueError(
            f"{name}, line 1 is {line[:80]!r}: it must name every column, each once; add a header"
        )
    return columns, delimiter


def cut_parquet(path: Path, *, columns: tuple[str, ...], block_bytes: int) -> Iterator[Piece]:
    """Cut a Parquet file into pieces of a few rows each, independent of its row groups.

    Args:
        path: The file.
        columns: Those to read; all, if it has none of these.
        block_bytes: Approximate bytes of values per piece.

    Raises:
        EOFError: The file is damaged.
    """
    import pyarrow
    import pyarrow.parquet

    num_bytes, num_rows = path.stat().st_size, 0
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES) as table:
            for batch in _batches(table, columns, block_bytes):
                num_rows += batch.num_rows
                sink = pyarrow.BufferOutputStream()
                with pyarrow.ipc.new_stream(sink, batch.schema) as stream:
                    stream.write_batch(batch)
                content = sink.getvalue().to_pybytes()
                yield content, batch.num_rows, num_bytes * num_rows // table.metadata.num_rows
    except (pyarrow.ArrowException, OSError) as error:
        raise EOFError(str(error)) from error


def _batches(table: Any, columns: tuple[str, ...], block_bytes: int) -> Iterator[Any]:
    """Yield the rows of an open file, as many at a time as a piece holds."""
    found = [name for name in columns if name in table.schema_arrow.names]
    for number in range(table.num_row_groups):
        rows = table.metadata.row_group(number)
        parts = [rows.column(index) for index in range(rows.num_columns)]
        num_bytes = sum(
            part.total_uncompressed_size
            for part in parts
            if not found or part.path_in_schema.split(".")[0] in found
        )
        mean_bytes = num_bytes // max(rows.num_rows, 1) + 1
        yield from table.iter_batches(
            batch_size=max(1, block_bytes // mean_bytes),
            row_groups=[number],
            columns=found or None,
        )


def read_parquet(content: bytes) -> Iterator[tuple[int, Record]]:
    """Yield the number of each row of a piece, from 1, and the row."""
    import pyarrow

    with pyarrow.ipc.open_stream(content) as stream:
        batch = stream.read_next_batch()
    try:
        records: list[Record] = batch.to_pylist()
    except UnicodeDecodeError:
        records = [_read_row(batch.slice(row, 1)) for row in range(batch.num_rows)]
    yield from enumerate(records, start=1)


def _read_row(batch: Any) -> Record:
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError:
        return "is not UTF-8"
