"""What the records of a block say: documents, conversations, system prompts.

A record that cannot be used is an error that names its place, or is skipped and counted. NUL and
lone surrogates are no fault: cleaning removes them, as any sign outside the alphabet.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from dimgpt.config import SourceConfig
from dimgpt.data import csv_records, parquet
from dimgpt.data.block import Block
from dimgpt.data.conversation import Conversation, Message

Item = str | Conversation
"""A document, or a conversation."""

_TURNS = ("conversation", "messages")
_PAIR = ("system", "user", "assistant")
_SKIP = "correct or remove it, or set bad_records to 'skip'"


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordRules:
    """What to make of records."""

    kind: Literal["document", "conversation", "system_prompt"]
    columns: tuple[str, ...]
    """Columns that are needed; of conversations, those that may hold one."""
    template: str | None = None
    """Text of a document made of its columns, in braces."""
    skip_bad: bool = False
    """Skip a record that cannot be read."""

    @classmethod
    def of_documents(cls, source: SourceConfig, *, skip_bad: bool) -> "RecordRules":
        """Return the rules of a source of documents."""
        return cls(
            kind="document",
            columns=source.text_columns,
            template=source.text_template,
            skip_bad=skip_bad,
        )

    @classmethod
    def of_conversations(cls, *, skip_bad: bool) -> "RecordRules":
        """Return the rules of conversations, whatever their source."""
        return cls(kind="conversation", columns=(*_TURNS, *_PAIR), skip_bad=skip_bad)


SYSTEM_PROMPT_RULES = RecordRules(kind="system_prompt", columns=("preprompt",))


class BadRecordError(ValueError):
    """A record that cannot be used."""


class MissingColumnError(BadRecordError):
    """A record without the column asked for."""


def read_items(block: Block, rules: RecordRules) -> Iterator[Item | None]:
    """Yield the items of a block; `None` for a record that is skipped.

    Raises:
        ValueError: A record cannot be used and is not to be skipped, or none of the block has the
            column asked for.
    """
    if block.kind == "items":
        yield from block.content
        return
    is_any_good = False
    missing: MissingColumnError | None = None
    for place, record in _read_records(block):
        item: Item | None = None
        try:
            item = _to_item(place, record, rules)
        except BadRecordError as error:
            if not rules.skip_bad:
                raise ValueError(f"{error}; {_SKIP}") from error
            missing = error if isinstance(error, MissingColumnError) else missing
        is_any_good = is_any_good or item is not None
        yield item
    if missing is not None and not is_any_good:
        raise ValueError(str(missing))


_Record = dict[str, Any] | str | BadRecordError
"""The values of a record, a whole text, or why it cannot be read."""


def _read_records(block: Block) -> Iterator[tuple[str, _Record]]:
    """Yield where each record stands, and what it holds."""
    if block.kind == "texts":
        for name, content in block.content:
            yield name, _decode(name, content)
    elif block.kind == "json":
        for number, line in enumerate(block.content.split(b"\n"), start=block.first + 1):
            if line.strip():
                place = f"{block.name}, line {number}"
                yield place, _parse_line(place, line)
    elif block.kind == "csv":
        for number, row in csv_records.read_rows(
            block.content, header=block.header, delimiter=block.delimiter
        ):
            place = f"{block.name}, line {block.first + number}"
            yield place, BadRecordError(f"{place} {row}") if isinstance(row, str) else row
    else:
        for number, row in enumerate(parquet.read_rows(block.content), start=block.first + 1):
            place = f"{block.name}, row {number}"
            is_bad = isinstance(row, UnicodeDecodeError)
            yield place, BadRecordError(f"{place} is not UTF-8") if is_bad else row


def _decode(name: str, content: bytes) -> str | BadRecordError:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return BadRecordError(
            f"{name} is not UTF-8 at byte {error.start:,}; convert it, for example with iconv"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse_line(place: str, line: bytes) -> dict[str, Any] | BadRecordError:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRecordError(f"{place} is no JSON ({error})")
    if not isinstance(values, dict):
        return BadRecordError(f"{place} is a JSON {type(values).__name__}: it must be an object")
    return values


def _to_item(place: str, record: _Record, rules: RecordRules) -> Item:
    if isinstance(record, BadRecordError):
        raise record
    if isinstance(record, str):
        return record
    if rules.kind == "conversation":
        return _to_conversation(place, record)
    if rules.kind == "system_prompt":
        message = Message(role="system", text=_text_of(place, record, rules.columns[0]))
        return Conversation(messages=(message,))
    if rules.template is None:
        return _text_of(place, record, rules.columns[0])
    return rules.template.format_map(
        {column: _text_of(place, record, column) for column in rules.columns}
    )


def _text_of(place: str, values: dict[str, Any], column: str) -> str:
    text = values.get(column)
    if isinstance(text, str):
        return text
    if column in values:
        raise BadRecordError(f"{place}: {column!r} is {type(text).__name__}: it must be text")
    raise MissingColumnError(
        f"{place} has no {column!r}: it has {_names(values)}; set the column's name"
    )


def _to_conversation(place: str, values: dict[str, Any]) -> Conversation:
    key = "text" if "conversation" in values else "content"
    turns = values.get("conversation", values.get("messages"))
    if turns is None and {"user", "assistant"} <= values.keys():
        turns = [{"role": role, key: values[role]} for role in _PAIR if values.get(role)]
    if isinstance(turns, str):  # a column of a CSV file
        turns = _parse_list(turns)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise MissingColumnError(
            f"{place} has no list 'conversation' or 'messages': it has {_names(values)}; or name "
            "its columns 'user' and 'assistant'"
        )
    return Conversation(
        messages=tuple(
            Message(role=_text_of(place, turn, "role"), text=_text_of(place, turn, key))
            for turn in turns
        )
    )


def _parse_list(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _names(values: dict[str, Any]) -> str:
    return ", ".join(map(repr, values)) or "nothing"
