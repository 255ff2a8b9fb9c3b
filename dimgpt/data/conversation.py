"""Encodes conversations as token ids, and computes the loss weight of each token.

A conversation is stored as its messages, each with the opening and closing tokens of its role. The
tokens before the first and after the last message are added when it is read. The formats are in
`text/chat_format.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dimgpt.text.chat_format import ChatIds
from dimgpt.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn: a role and its text. The chat format lists the roles that it knows."""

    role: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """Messages in their order."""

    messages: tuple[Message, ...]

    @property
    def stored(self) -> tuple[Message, ...]:
        """The messages that a token file holds."""
        return self.messages


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference(Conversation):
    """A conversation whose last answer is better than a rejected one."""

    rejected: Message

    @property
    def stored(self) -> tuple[Message, ...]:
        """The conversation with the better answer, then the rejected one."""
        return (*self.messages, self.rejected)


def encode_message(message: Message, tokenizer: Tokenizer) -> list[int]:
    """Encode a message in the tokenizer's chat format; a role that the format omits has no ids."""
    return tokenizer.chat.encode_message(message.role, message.text)


def encode_conversation(conversation: Conversation, tokenizer: Tokenizer) -> list[int]:
    """Encode every message, without the tokens before the first and after the last one."""
    return [id for message in conversation.stored for id in encode_message(message, tokenizer)]


def encode_prompt(messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """Encode a conversation up to the point where the assistant answers.

    Raises:
        ValueError: There is no message, or the last one is the assistant's or the system's.
    """
    if not messages or messages[-1].role in ("assistant", "system"):
        problem = f"ends with role {messages[-1].role!r}" if messages else "is empty"
        raise ValueError(f"the conversation {problem}: add a message with role 'user'")
    ids = encode_conversation(Conversation(messages=tuple(messages)), tokenizer)
    return [*tokenizer.chat.beginning, *ids, *tokenizer.chat.assistant_opener]


def loss_weights(
    ids: Sequence[int] | np.ndarray[Any, Any],
    chat: ChatIds,
    *,
    instruction_weight: float,
) -> np.ndarray[Any, Any]:
    """Return the loss weight of each token: 1 for what the model learns, else `instruction_weight`.

    The weight is 1 after the opener of a role that the model learns, up to and including the next
    stop token. So the model learns to end its turn, but not to begin one.

    Args:
        ids: One document, or several one after the other, shape (T,).
        chat: The format that they are written in.
        instruction_weight: Weight of all other tokens, in 0..1; 0 in validation.

    Returns:
        float32 (T,), aligned with `ids`, before they are shifted by one to make targets.
    """
    tokens = np.asarray(ids, dtype=np.int64)
    opens = np.zeros(len(tokens), dtype=bool)
    for opener in chat.learned_openers:
        opens |= _ends_of(opener, tokens)
    closes = np.isin(tokens, chat.stops)
    # The last opener or stop before a token decides whether the model learns it.
    last_switch = np.maximum.accumulate(np.where(opens | closes, np.arange(len(tokens)), -1))
    is_open = (last_switch >= 0) & opens[last_switch]
    weights = np.full(len(tokens), instruction_weight, dtype=np.float32)
    weights[1:][is_open[:-1]] = 1.0
    return weights


class Exchange(NamedTuple):
    """A question and its answer in a conversation."""

    prompt: list[int]
    """Ids of everything before the answer."""
    question: list[int]
    """Ids of the prompt's last message, of the user."""
    answer: list[int]


def first_exchange(ids: np.ndarray[Any, Any], chat: ChatIds) -> Exchange | None:
    """Return the first answer in the ids of a conversation, (T,), and the question before it."""
    tokens, opener = np.asarray(ids, dtype=np.int64), chat.assistant_opener
    answers = np.flatnonzero(_ends_of(opener, tokens)) + 1
    asked = np.flatnonzero(_ends_of(chat.user_opener, tokens)) + 1
    if not (len(answers) and (asked := asked[asked < answers[0]]).size):
        return None
    before, after = tokens[: answers[0]].tolist(), tokens[answers[0] :]
    stops = np.flatnonzero(np.isin(after, chat.stops))
    return Exchange(
        prompt=[*chat.beginning, *before],
        question=before[asked[-1] : len(before) - len(opener)],
        answer=after[: stops[0] if len(stops) else None].tolist(),
    )


def split_pair(
    ids: np.ndarray[Any, Any], chat: ChatIds
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Split the ids of a `Preference` into conversation, better answer and rejected answer.

    Raises:
        ValueError: The ids do not contain two answers.
    """
    opener = chat.assistant_opener
    places = np.flatnonzero(_ends_of(opener, np.asarray(ids))) - len(opener) + 1
    if len(places) < 2:
        raise ValueError(
            f"a document of {len(ids)} tokens is no pair of answers: prepare the data again"
        )
    conversation, better, rejected = np.split(np.asarray(ids), places[-2:])
    return conversation, better, rejected


def has_answer(ids: Sequence[int] | np.ndarray[Any, Any], chat: ChatIds) -> bool:
    """Return whether any of these ids, (T,), would be learned."""
    return bool(loss_weights(ids, chat, instruction_weight=0.0).any())


def _ends_of(opener: Sequence[int], tokens: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mark the last token of every occurrence of `opener`, bool (T,)."""
    found = np.zeros(len(tokens), dtype=bool)
    if len(tokens) >= len(opener):
        windows = np.lib.stride_tricks.sliding_window_view(tokens, len(opener))
        found[len(opener) - 1 :] = (windows == opener).all(axis=1)
    return found
