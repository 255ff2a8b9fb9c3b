"""Reads preferences from records: a conversation and two answers, one of them better.

The answers are `chosen` and `rejected`, each a text or a list of messages that ends with it. The
conversation before them is `prompt`, `messages`, `conversations`, `conversation` or `question` (a
text of the user or a list of messages), perhaps with `system`; or the common beginning of both
lists. `records.py` reads the messages.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from dimgpt.data.conversation import Preference
from dimgpt.data.records import text_of, to_conversation

_PROMPTS = ("prompt", "messages", "conversations", "conversation", "question")


def to_preferences(
    rows: Iterable[tuple[str, dict[str, Any] | ValueError]],
) -> Iterator[Preference | ValueError]:
    """Turn records into preferences, in their order; an unusable record becomes an error."""
    for place, values in rows:
        try:
            yield values if isinstance(values, ValueError) else to_preference(place, values)
        except ValueError as error:
            yield error


def to_preference(place: str, values: dict[str, Any]) -> Preference:
    """Turn one record into a preference.

    Raises:
        ValueError: It holds none, the answers are the same, or they answer different conversations.
    """
    name = next((name for name in _PROMPTS if values.get(name)), None)
    prompt = [] if name is None else _listed(values[name], "user")
    both = []
    for column in ("chosen", "rejected"):
        if column not in values:
            text_of(place, values, column)  # raises an error that lists the columns
        said = _listed(values[column], "assistant")
        said = said if said[: len(prompt)] == prompt else [*prompt, *said]
        record = {"system": values.get("system"), "conversations": said}
        messages = to_conversation(f"{place}, {column!r}", record).messages
        if len(messages) < 2 or messages[-1].role != "assistant":
            raise ValueError(
                f"{place}: {column!r} must end with an answer of the assistant to a 'prompt' or to "
                "messages before it"
            )
        both.append(messages)
    (*before, chosen), (*others, rejected) = both
    if before != others:
        raise ValueError(f"{place}: 'chosen' and 'rejected' answer different conversations")
    if chosen.text.strip() == rejected.text.strip():
        raise ValueError(f"{place}: 'chosen' and 'rejected' are the same answer")
    return Preference(messages=both[0], rejected=rejected)


def _listed(value: Any, role: str) -> list[Any]:
    """Return a list of messages unchanged, or a text as one message of `role`."""
    return value if isinstance(value, list) else [{"role": role, "content": value}]
