"""Reads the text or the conversation that a record holds.

A record is named values from a file or a data set. It comes with its place, so that an error can
name it. `preparing/items.py` reads records.

A conversation is one record: a list `conversation` or `messages` of `{role, text}` or
`{role, content}` (DimensionGPT, French Instruct, smoltalk, magpie), or columns `user` and
`assistant`, or `question` and `answer`, perhaps with `system`. Or each record is one message, with
`conversation_id`, `role` and `text` or `content`; those of one conversation follow each other.

A preference is one record: two answers, `chosen` and `rejected`, each a text or a list of messages
that ends with it. What they answer is `prompt`, a text of the user or a list of messages;
`messages` or `question`, likewise, perhaps with `system`; or what the two lists begin with.

A `context`, as in French Instruct, is what the user speaks about: it is put before the first
message of the user, and not into the system prompt. Roles are read without case. A record of no
known format is refused, never guessed at.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, starmap
from typing import Any

from dimgpt.config import SourceConfig
from dimgpt.data.conversation import Conversation, Message, Preference
from dimgpt.text.detokenizing import detokenize

Row = tuple[str, dict[str, Any]]
"""The place of a record, for error messages, and its values."""
_LISTS = ("conversation", "messages")
_TEXTS = ("text", "content")
_PAIRS = (("user", "assistant"), ("question", "answer"))
_PROMPTS = ("prompt", "messages", "conversation", "question")
_ID = "conversation_id"


def document_of(place: str, record: dict[str, Any] | str, source: SourceConfig) -> str:
    """Return the text of a record, or the whole text of a file, by the source's rule of cleaning.

    The text of a record is its column, or its columns in the template of the source. A column of a
    template may be empty or null, as titles are; the others stay, and blanks at the edges are
    removed.

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
        ValueError: There is no such column, which ends with the remedy; or it holds no text.
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


def to_conversations(
    rows: Iterable[Row], *, on_bad: Callable[[ValueError], None] | None = None
) -> Iterator[Conversation]:
    """Turn records into conversations, in their order.

    Args:
        rows: Records with their places, of any of the formats.
        on_bad: Takes the error of each conversation that is left out; `None` raises it.

    Raises:
        ValueError: Names the record that is no conversation.
    """
    for _, group in groupby(enumerate(rows), key=_conversation_key):
        members = [row for _, row in group]
        place, values = members[0]
        try:
            if _ID in values:
                conversation = Conversation(messages=tuple(starmap(_to_message, members)))
            else:
                conversation = to_conversation(place, values)
        except ValueError as error:
            if on_bad is None:
                raise
            on_bad(error)
            continue
        yield conversation


def to_conversation(place: str, values: dict[str, Any]) -> Conversation:
    """Turn one record into the conversation that it holds.

    Raises:
        ValueError: It is no conversation of a known format.
    """
    name = next((name for name in _LISTS if name in values), None)
    if name is not None:
        messages = _listed_messages(place, name, values[name])
    else:
        messages = _paired_messages(place, values)
    context = values.get("context") or ""
    if not isinstance(context, str):
        raise ValueError(f"{place}: 'context' is {type(context).__name__}: it must be text")
    if context.strip():
        messages = _put_before_first_question(messages, context.strip())
    return Conversation(messages=tuple(messages))


def _conversation_key(numbered: tuple[int, Row]) -> tuple[str, Any]:
    """Return what the records of one conversation share: its id, or the record's number."""
    number, (_, values) = numbered
    return (_ID, values[_ID]) if _ID in values else ("", number)


def _listed_messages(place: str, name: str, turns: Any) -> list[Message]:
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError(f"{place}: {name!r} is no list of objects with 'role' and 'text'")
    return [_to_message(f"{place}, message {number}", turn) for number, turn in enumerate(turns, 1)]


def _to_message(place: str, turn: dict[str, Any]) -> Message:
    name = next((name for name in _TEXTS if name in turn), None)
    if name is None:
        raise ValueError(f"{place} has no 'text' or 'content': it has {names_of(turn)}")
    role = text_of(place, turn, "role").strip().lower()
    if not role:
        raise ValueError(f"{place}: 'role' is empty: it must be user, assistant, system or human")
    return Message(role=role, text=text_of(place, turn, name))


def _paired_messages(place: str, values: dict[str, Any]) -> list[Message]:
    pair = next((pair for pair in _PAIRS if set(pair) <= set(values)), None)
    if pair is None:
        raise ValueError(
            f"{place} is no conversation: it takes a list 'conversation' or 'messages', or columns "
            "'user' and 'assistant', 'question' and 'answer', or 'conversation_id', 'role' and "
            f"'text'; it has {names_of(values)}"
        )
    texts = {"system": values.get("system") or "", "user": "", "assistant": ""}
    for role, column in zip(("user", "assistant"), pair, strict=True):
        texts[role] = text_of(place, values, column)
        if not texts[role].strip():
            raise ValueError(f"{place}: {column!r} is empty; fill it in or remove the record")
    if not isinstance(texts["system"], str):
        raise ValueError(f"{place}: 'system' must be text")
    return [Message(role=role, text=text) for role, text in texts.items() if text.strip()]


def _put_before_first_question(messages: list[Message], context: str) -> list[Message]:
    place = next((place for place, item in enumerate(messages) if item.role == "user"), None)
    if place is None:
        return [Message(role="user", text=context), *messages]
    question = Message(role="user", text=f"{context}\n\n{messages[place].text}")
    return [*messages[:place], question, *messages[place + 1 :]]


def to_preferences(
    rows: Iterable[Row], *, on_bad: Callable[[ValueError], None]
) -> Iterator[Preference]:
    """Turn records into preferences, in their order; `on_bad` takes the error of each bad one."""
    for place, values in rows:
        try:
            preference = to_preference(place, values)
        except ValueError as error:
            on_bad(error)
            continue
        yield preference


def to_preference(place: str, values: dict[str, Any]) -> Preference:
    """Turn one record into the preference that it holds.

    Raises:
        ValueError: It is none, the answers are the same, or they answer different conversations.
    """
    name = next((name for name in _PROMPTS if values.get(name)), None)
    prompt = [] if name is None else _messages_of(place, values, name, "user")
    if values.get("system"):
        prompt = [*_messages_of(place, values, "system", "system"), *prompt]
    whole = []
    for column in ("chosen", "rejected"):
        said = _messages_of(place, values, column, "assistant")
        said = said if said[: len(prompt)] == prompt else [*prompt, *said]
        if len(said) < 2 or said[-1].role != "assistant" or not said[-1].text.strip():
            raise ValueError(
                f"{place}: {column!r} must end with an answer of the assistant that is not empty, "
                "to a 'prompt' or to messages before it"
            )
        whole.append(said)
    (*before, chosen), (*others, rejected) = whole
    if before != others:
        raise ValueError(f"{place}: 'chosen' and 'rejected' answer different conversations")
    if chosen.text.strip() == rejected.text.strip():
        raise ValueError(f"{place}: 'chosen' and 'rejected' are the same answer")
    return Preference(messages=tuple(whole[0]), rejected=rejected)


def _messages_of(place: str, values: dict[str, Any], column: str, role: str) -> list[Message]:
    """Return the messages of a list, or a text as the message of a role."""
    if isinstance(values.get(column), list):
        return _listed_messages(place, column, values[column])
    return [Message(role=role, text=text_of(place, values, column))]
