"""Reads the text or the conversation of a record.

A record is a dictionary of values from a file or a data set. It comes with its place, for error
messages. `preparing/items.py` reads records.

`FORMS` lists the forms of conversations, and `ROLES` the names of roles. In every form a column
`system` is the system message. A `context`, as in French Instruct, is the text that the user asks
about; it is put before the first message of the user. `docs/conversations.md` shows a record of
each form.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

from dimgpt.config import SourceConfig
from dimgpt.data.conversation import Conversation, Message
from dimgpt.text.detokenizing import detokenize

Row = tuple[str, dict[str, Any]]
"""The place of a record, for error messages, and its values."""


class Form(NamedTuple):
    """One way to write conversations in records."""

    shape: Literal["list", "rows", "pair"]
    """A record is a list of messages, or one message, or a question and its answer."""
    columns: tuple[str, ...]
    """`list`: names that the list may have. `rows`: the id that the messages of a conversation
    share, and the role. `pair`: question and answer, each a text or a list of messages."""
    texts: tuple[str, ...] = ("content", "text")
    """Names that the text of a message may have."""
    role: str = "role"
    """Name of a message's role."""
    more: str = ""
    """`pair`: a column that continues the question; it may be empty."""


FORMS = {
    "DimensionGPT": Form("list", ("conversation",), ("text",)),
    "ShareGPT": Form("list", ("conversations", "conversation"), ("value",), "from"),
    "messages": Form("list", ("messages", "conversations", "conversation")),
    "message_rows": Form("rows", ("conversation_id", "role")),
    "prompt_completion": Form("pair", ("prompt", "completion")),
    "prompt_response": Form("pair", ("prompt", "response")),
    "Alpaca": Form("pair", ("instruction", "output"), more="input"),
    "Dolly": Form("pair", ("instruction", "response")),
    "user_assistant": Form("pair", ("user", "assistant")),
    "question_answer": Form("pair", ("question", "answer")),
}
"""Name, as in `ConversationSourceConfig.form` -> form. A record has the first form that fits."""

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "bot", "chatbot", "gpt", "model", "ai"), "assistant"),
}
"""Name of a role in records, in lower case -> the role."""
# DimensionGPT's data also has conversations between humans, which its model learns to imitate.
_ROLES_OF = {"DimensionGPT": {**ROLES, "human": "human"}}


def document_of(place: str, record: dict[str, Any] | str, source: SourceConfig) -> str:
    """Return the text of a record or of a text file, after the source's own rule of cleaning.

    The text of a record is one column, or several in the source's template. A column in a template
    may be empty or null, as titles are; the others remain, and blanks at the ends are removed.

    Raises:
        ValueError: A column is missing, or is no text.
    """
    text = record if isinstance(record, str) else _text_of_columns(place, record, source)
    return detokenize(text) if source.cleaning == "detokenize" else text


def _text_of_columns(place: str, values: dict[str, Any], source: SourceConfig) -> str:
    if source.text_template is None:
        remedy = "set text_column (--text-column NAME)"
        return text_of(place, values, source.text_column, remedy=remedy)
    remedy = "correct text_template"
    texts = {
        column: ""
        if values.get(column, "") is None
        else text_of(place, values, column, remedy=remedy).strip()
        for column in source.text_columns
    }
    return source.text_template.format_map(texts).strip() if any(texts.values()) else ""


def text_of(
    place: str, values: dict[str, Any], column: str, *, remedy: str = "add it to the record"
) -> str:
    """Return a text of a record.

    Raises:
        ValueError: The column is missing (the message ends with the remedy), or is no text.
    """
    text = values.get(column)
    if isinstance(text, str):
        return text
    if column not in values:
        raise ValueError(f"{place} has no {column!r}: it has {names_of(values)}; {remedy}")
    kind = "null" if text is None else type(text).__name__
    raise ValueError(f"{place}: {column!r} is {kind}: it must be text")


def names_of(values: dict[str, Any]) -> str:
    """Return the columns of a record in words."""
    return ", ".join(map(repr, values)) or "nothing"


def form_of(values: dict[str, Any]) -> str | None:
    """Return the name of the first form that a record fits, or `None`."""
    return next((name for name, form in FORMS.items() if _fits(form, values)), None)


def _fits(form: Form, values: dict[str, Any]) -> bool:
    if form.shape != "list":
        return values.keys() >= {*form.columns}
    lists = (values[name] for name in form.columns if isinstance(values.get(name), list))
    first = [turns[0] for turns in lists if turns and isinstance(turns[0], dict)]
    return any(turn.get(name) is not None for turn in first for name in form.texts)


def to_conversations(
    rows: Iterable[tuple[str, dict[str, Any] | ValueError]],
    *,
    form: str | None = None,
    on_form: Callable[[str], None] = lambda name: None,
) -> Iterator[Conversation | ValueError]:
    """Turn the records of a file into conversations, in their order.

    Args:
        rows: Records with their places, or why one cannot be read.
        form: The name of their form. `None` takes the form of the first record that has one; then
            records of other forms are errors.
        on_form: Called with the name of the form that was recognised.

    Yields:
        A conversation, or an error that names the record.
    """
    known = form
    for _, group in groupby(enumerate(rows), lambda row: _key(row[0], row[1][1], form)):
        found_rows: list[Any] = [row for _, row in group]
        place, values = found_rows[0]
        if isinstance(values, ValueError):  # alone in its group
            yield values
            continue
        found = form or form_of(values)
        if known is None and found is not None:
            known = found
            on_form(known)
        if found not in (known, None):
            yield ValueError(
                f"{place} has the form {found!r}, but the records before it have {known!r}: put "
                "them into another file, or set the form of the source"
            )
            continue
        try:
            yield _to_conversation(found_rows, known)
        except ValueError as error:
            yield error


def _key(number: int, values: dict[str, Any] | ValueError, form: str | None) -> tuple[str, Any]:
    """Return the key that records of one conversation share: its id, or the record's number."""
    if isinstance(values, dict) and (form or form_of(values)) == "message_rows":
        return "id", values.get("conversation_id")
    return "number", number


def to_conversation(place: str, values: dict[str, Any], form: str | None = None) -> Conversation:
    """Turn one record into a conversation; without `form`, recognise the form.

    Raises:
        ValueError: The record is no conversation of that form, or of any.
    """
    return _to_conversation([(place, values)], form or form_of(values))


def _to_conversation(rows: Sequence[Row], name: str | None) -> Conversation:
    place, values = rows[0]
    if name is None and values.keys() & FORMS["messages"].columns:
        name = "messages"  # `_listed_turns` then says what is wrong with the list
    if name is None:
        raise ValueError(
            f"{place} is not a conversation: it has {names_of(values)}; use columns such as "
            "'messages', or 'user' and 'assistant' (docs/conversations.md lists all)"
        )
    context = values.get("context") or ""
    if not isinstance(context, str):
        raise ValueError(f"{place}: 'context' is {type(context).__name__}: it must be text")
    messages: list[Message] = []
    for turn in _turns(rows, FORMS[name]):
        message = _to_message(turn, _ROLES_OF.get(name, ROLES))
        if message.role == "system" and not message.text.strip():
            continue  # an empty column stands for no system message
        _check_order(turn, message, messages)
        messages.append(message)
    roles = {message.role for message in messages}
    if not roles & {"assistant", "human"}:
        raise ValueError(f"{place} has no message of the assistant: there is nothing to learn")
    if "human" in roles and roles & {"user", "assistant"}:
        raise ValueError(
            f"{place}: in the form DimensionGPT, 'human' is for talk between humans: write 'user', "
            "or set the form of the source to 'messages'"
        )
    if context.strip():
        messages = _put_before_first_question(messages, context.strip())
    return Conversation(messages=tuple(messages))


class _Turn(NamedTuple):
    """A message as a record holds it."""

    place: str
    role: str
    column: str
    """Column of its text."""
    content: Any


def _turns(rows: Sequence[Row], form: Form) -> Iterator[_Turn]:
    place, values = rows[0]
    if values.get("system"):
        yield _Turn(place, "system", "system", values["system"])
    if form.shape == "rows":
        if values.get("conversation_id") in (None, ""):
            raise ValueError(
                f"{place} has no 'conversation_id', which messages of one conversation must share"
            )
        for place, values in rows:
            yield _turn(place, values, form)
    elif form.shape == "list":
        column = next((name for name in form.columns if name in values), form.columns[0])
        yield from _listed_turns(place, values, column, form)
    else:
        for role, column in zip(("user", "assistant"), form.columns, strict=True):
            if isinstance(values.get(column), list):
                yield from _listed_turns(place, values, column, FORMS["messages"])
                continue
            text = text_of(place, values, column)
            if role == "user" and form.more and values.get(form.more):
                text = f"{text}\n\n{text_of(place, values, form.more)}"
            yield _Turn(place, role, column, text)


def _listed_turns(place: str, values: dict[str, Any], column: str, form: Form) -> Iterator[_Turn]:
    turns = values.get(column)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        names = f"{form.role!r} and {form.texts[0]!r}"
        raise ValueError(f"{place}: {column!r} is not a list of objects with {names}")
    for number, turn in enumerate(turns, start=1):
        yield _turn(f"{place}, message {number}", turn, form)


def _turn(place: str, values: dict[str, Any], form: Form) -> _Turn:
    # In a table with both columns, one of them is null.
    column = max(form.texts, key=lambda name: (values.get(name) is not None, name in values))
    if column not in values:
        names = " or ".join(map(repr, form.texts))
        raise ValueError(f"{place} has no {names}: it has {names_of(values)}")
    if values.get("tool_calls") or values.get("function_call"):
        raise ValueError(f"{place} calls a tool: only messages of text are supported")
    return _Turn(place, text_of(place, values, form.role), column, values[column])


def _to_message(turn: _Turn, roles: dict[str, str]) -> Message:
    parts = [turn.content]
    if isinstance(turn.content, list):  # OpenAI's content parts
        parts = [part.get("text") if isinstance(part, dict) else None for part in turn.content]
    if not all(isinstance(part, str) for part in parts):
        kind = "null" if turn.content is None else type(turn.content).__name__
        raise ValueError(f"{turn.place}: {turn.column!r} is {kind}: it must be text")
    name = turn.role.strip().lower()
    if name not in roles:
        raise ValueError(
            f"{turn.place}: the role is {turn.role!r}: it must be one of {', '.join(roles)}"
        )
    return Message(role=roles[name], text="".join(parts))


def _check_order(turn: _Turn, message: Message, before: Sequence[Message]) -> None:
    """Refuse an empty message, or one that cannot follow those before it."""
    if not message.text.strip():
        raise ValueError(f"{turn.place}: {turn.column!r} is empty")
    if message.role == "system" and before:
        raise ValueError(f"{turn.place} is a system message: it must be the first message")
    if before and message.role == before[-1].role != "human":
        raise ValueError(f"{turn.place}: two messages of the {message.role} follow each other")


def _put_before_first_question(messages: list[Message], context: str) -> list[Message]:
    place = next((place for place, item in enumerate(messages) if item.role == "user"), None)
    if place is None:
        return [Message(role="user", text=context), *messages]
    question = Message(role="user", text=f"{context}\n\n{messages[place].text}")
    return [*messages[:place], question, *messages[place + 1 :]]
