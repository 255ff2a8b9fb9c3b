"""Parquet files as blocks, and the rows of such a block.

A few rows are read at a time, however large the file's own groups of rows are.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dimgpt.data.preparing.block import BLOCK_BYTES, Block, damaged
from dimgpt.data.preparing.listing import SourceFile


def read_parquet(
    file: SourceFile, path: Path, *, columns: tuple[str, ...], block_bytes: int
) -> Iterator[Block]:
    """Cut a file into blocks.

    Args:
        file: As it is listed.
        path: Where it lies.
        columns: Those to read; all, if it has none of these.
        block_bytes: About how much a block holds.

    Raises:
        ValueError: It is damaged.
    """
    import pyarrow
    import pyarrow.parquet

    first = last_place = 0
    try:
        with pyarrow.parquet.ParquetFile(path, buffer_size=BLOCK_BYTES) as table:
            for batch in _batches(table, columns, block_bytes):
                place = file.num_bytes * (first + batch.num_rows) // table.metadata.num_rows
                content = _to_bytes(batch)
                yield Block(
                    kind="table",
                    name=file.name,
                    first=first,
                    content=content,
                    num_bytes=len(content),
                    file_bytes=place - last_place,
                )
                first += batch.num_rows
                last_place = place
    except (pyarrow.ArrowException, OSError) as error:
        raise damaged(file.name, f"row {first:,}", error) from error


def _batches(table: Any, columns: tuple[str, ...], block_bytes: int) -> Iterator[Any]:
    """Yield the rows of an open file, as many at a time as a block holds."""
    found = [name for name in columns if name in table.schema_arrow.names]
    for number in range(table.num_row_groups):
        rows = table.metadata.row_group(number)
        mean_bytes = _num_bytes(rows, found) // max(rows.num_rows, 1) + 1
        yield from table.iter_batches(
            batch_size=max(1, block_bytes // mean_bytes),
            row_groups=[number],
            columns=found or None,
        )


def _num_bytes(rows: Any, columns: list[str]) -> int:
    """Return the size of some columns of a row group, decompressed; no columns are all."""
    parts = [rows.column(number) for number in range(rows.num_columns)]
    return sum(
        part.total_uncompressed_size
        for part in parts
        if not columns or part.path_in_schema.split(".")[0] in columns
    )


def _to_bytes(batch: Any) -> bytes:
    import pyarrow

    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue().to_pybytes()


def read_rows(content: bytes) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    """Yield the rows of a block; of one that is not UTF-8, the error."""
    import pyarrow

    with pyarrow.ipc.open_stream(content) as stream:
        for batch in stream:
            try:
                yield from batch.to_pylist()
            except UnicodeDecodeError:
                yield from map(_read_row, (batch.slice(row, 1) for row in range(batch.num_rows)))


def _read_row(batch: Any) -> dict[str, Any] | UnicodeDecodeError:
    try:
        return batch.to_pylist()[0]
    except UnicodeDecodeError as error:
        return error
