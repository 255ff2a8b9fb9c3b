"""Documents and conversations from where they are: files, folders, hub data sets, the demo.

Everything is read as a stream, in a fixed order, so that a reader sees the same documents each
time. Whatever cannot be read stops the reader with one line that names the place; nothing is
skipped silently. Cleaning and choosing are `preparation.py`'s.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.data import demo_corpus
from dimgpt.data.conversation import Conversation
from dimgpt.data.conversation_formats import to_conversations
from dimgpt.data.hub_shards import stream_rows
from dimgpt.data.records import Row, document_of, text_of

TABLE_SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
TEXT_SUFFIXES = (".txt", *TABLE_SUFFIXES)
_HUB_PREFIX, _DEMO_PREFIX = "hf://datasets/", "demo://"


def read_documents(source: SourceConfig, *, seed: int = 0) -> Iterator[str]:
    """Yield the documents of a source, one after the other.

    A file, or a folder read recursively in the order of its paths: `.txt` (a document a file),
    `.jsonl`, `.jsonl.gz`, `.parquet` (a document a record); other files of a folder are left
    alone. Or `hf://datasets/owner/name`, streamed. Or `demo://stories/20000`, made on the spot.

    Args:
        source: Relative paths start at the working directory.
        seed: Seed of the demo's documents.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: The source is empty, damaged, or lacks the column.
    """
    if is_demo(source.path):
        yield from demo_corpus.stories(_demo_count(source.path, "stories"), seed=seed)
        return
    is_empty = True
    for document in _read_texts(source):
        is_empty = False
        yield document
    if is_empty:
        raise ValueError(f"{source.path} holds no document; check the path of {source.name!r}")


def read_conversations(
    source: ConversationSourceConfig, *, seed: int = 0
) -> Iterator[Conversation]:
    """Yield the conversations of a source.

    Records of the forms that `conversation_formats.py` knows, in the places that `read_documents`
    reads, without `.txt`; or `demo://conversations/30000`.

    Args:
        source: Relative paths start at the working directory.
        seed: Seed of the demo's conversations.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: The source is empty or damaged, or a record is no conversation.
    """
    if is_demo(source.path):
        count = _demo_count(source.path, "conversations")
        yield from demo_corpus.conversations(count, seed=seed)
        return
    is_empty = True
    for conversation in to_conversations(
        _read_rows(source.path, source.hub_config, source.hub_split)
    ):
        is_empty = False
        yield conversation
    if is_empty:
        raise ValueError(f"{source.path} holds no conversation; check the path of {source.name!r}")


def read_system_prompts(source: ConversationSourceConfig) -> Iterator[str]:
    """Yield the system prompts of a group, records `{"preprompt": ...}`; none without a path.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: It is damaged, or a record has no `preprompt`.
    """
    if source.system_prompts_path is None:
        return
    path = source.system_prompts_path
    hub_config = source.system_prompts_hub_config
    for place, values in _read_rows(path, hub_config, source.hub_split):
        yield text_of(place, values, "preprompt")


def list_files(path: str, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files that a local path stands for, in order.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: It is of no known kind, or a folder without such files.
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"{path} does not exist (seen from {Path.cwd()}); check the path")
    if root.is_file() and root.name.endswith(suffixes):
        return [root]
    files = sorted(
        found for found in root.rglob("*") if found.is_file() and found.name.endswith(suffixes)
    )
    if not files:
        raise ValueError(f"{path} has nothing to read: it takes {', '.join(suffixes)} files")
    return files


def is_demo(path: str) -> bool:
    """Tell whether a path stands for documents that the demo makes up."""
    return path.startswith(_DEMO_PREFIX)


def is_local(path: str) -> bool:
    """Tell whether a source's path is one of this machine's files or folders."""
    return "://" not in path


def _read_texts(source: SourceConfig) -> Iterator[str]:
    if is_local(source.path):
        for path in list_files(source.path, TEXT_SUFFIXES):
            if path.suffix == ".txt":
                yield _read_text_file(path)
            else:
                for place, values in _read_table(path, columns=source.text_columns):
                    yield document_of(place, values, source)
        return
    for place, values in _read_hub(source.path, source.hub_config, source.hub_split):
        yield document_of(place, values, source)


def _read_rows(path: str, hub_config: str | None, hub_split: str) -> Iterator[Row]:
    if not is_local(path):
        yield from _read_hub(path, hub_config, hub_split)
        return
    for file_path in list_files(path, TABLE_SUFFIXES):
        yield from _read_table(file_path)


def _read_table(path: Path, *, columns: tuple[str, ...] = ()) -> Iterator[Row]:
    """Yield the records of a file; where some columns are enough, others may be left out."""
    if path.suffix == ".parquet":
        return _read_parquet(path, columns)
    return _read_json_lines(path)


def _read_text_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 at byte {error.start:,}; convert it, for example with iconv"
        ) from error


def _read_json_lines(path: Path) -> Iterator[Row]:
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}, line {number}", _parse_line(f"{path}, line {number}", line)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is cut short or damaged after line {number} ({error}); fetch it again"
        ) from error


def _parse_line(place: str, line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is no JSON ({error}); correct or remove it") from error
    if not isinstance(values, dict):
        raise ValueError(f"{place} is a JSON {type(values).__name__}: it must be an object")
    return values


def _read_parquet(path: Path, columns: tuple[str, ...]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            is_enough = columns and set(columns) <= set(table.schema_arrow.names)
            chosen = list(columns) if is_enough else None
            for batch in table.iter_batches(batch_size=1024, columns=chosen):
                for values in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", values
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path} is cut short or damaged after row {number} ({reason}); fetch it again"
        ) from error


def _read_hub(path: str, hub_config: str | None, hub_split: str) -> Iterator[Row]:
    if not path.startswith(_HUB_PREFIX):
        raise ValueError(
            f"path is {path!r}: it must be a local path, {_HUB_PREFIX}owner/name, "
            f"{_DEMO_PREFIX}stories/N or {_DEMO_PREFIX}conversations/N"
        )
    name = path.removeprefix(_HUB_PREFIX)
    for number, values in enumerate(stream_rows(name, config=hub_config, split=hub_split)):
        yield f"{path}, row {number + 1}", values


def _demo_count(path: str, kind: str) -> int:
    count = path.removeprefix(f"{_DEMO_PREFIX}{kind}/")
    if not (count.isascii() and count.isdigit() and int(count)):
        raise ValueError(
            f"path is {path!r}: it must be {_DEMO_PREFIX}{kind}/N with how many to make, such as "
            f"{_DEMO_PREFIX}{kind}/20000"
        )
    return int(count)
