"""Encodes conversations as token ids, and weighs each token in the loss.

A conversation is stored as `role text role text ...`, where a role is one special token. The tokens
that open and close a document are added when it is read. This file inserts the ids of roles: text
never becomes one, whatever a user types.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dimgpt.text.special_tokens import SpecialTokens
from dimgpt.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn: the role that speaks, and its text.

    Roles other than `system`, `user` and `assistant` are encoded as `human`.
    """

    role: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """Messages in their order."""

    messages: tuple[Message, ...]


def encode_message(message: Message, tokenizer: Tokenizer) -> list[int]:
    """Encode a message as its role's id and its text's ids."""
    roles = tokenizer.special_tokens.roles()
    ids = {"system": roles.system, "user": roles.user, "assistant": roles.assistant}
    return [ids.get(message.role, roles.human), *tokenizer.encode(message.text)]


def encode_conversation(conversation: Conversation, tokenizer: Tokenizer) -> list[int]:
    """Encode every message, without start-of-text and end-of-text."""
    return [id for message in conversation.messages for id in encode_message(message, tokenizer)]


def encode_prompt(messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """Encode a conversation up to the token after which the assistant speaks.

    Raises:
        ValueError: There is no message, or the last one is the assistant's or the system's.
    """
    if not messages or messages[-1].role in ("assistant", "system"):
        last = repr(messages[-1].role) if messages else "missing"
        raise ValueError(f"the last message is {last}: it must be the user's; add a user message")
    ids = encode_conversation(Conversation(messages=tuple(messages)), tokenizer)
    assistant = tokenizer.special_tokens.roles().assistant
    return [*tokenizer.encode_beginning(""), *ids, assistant]


def loss_weights(
    ids: Sequence[int] | np.ndarray[Any, Any],
    special_tokens: SpecialTokens,
    *,
    instruction_weight: float,
) -> np.ndarray[Any, Any]:
    """Weigh each token as a target: 1 for what the model should say, else `instruction_weight`.

    The weight is 1 after ⮜assistant⮞ or ⮜human⮞, up to and including the next ⮜user⮞ or
    ⮜end-of-text⮞. So the model learns to end its turn, and does not learn to begin one.

    Args:
        ids: One document, or several one after the other, shape (T,).
        special_tokens: Of the vocabulary.
        instruction_weight: Weight of all other tokens, in 0..1; 0 in validation.

    Returns:
        float32 (T,), aligned with `ids`: before the shift by one that makes targets of them.
    """
    tokens = np.asarray(ids, dtype=np.int64)
    opens = (tokens == special_tokens.assistant) | (tokens == special_tokens.human)
    closes = (tokens == special_tokens.user) | (tokens == special_tokens.end_of_text)
    # The nearest opening or closing token up to here says whether the model speaks.
    last_switch = np.maximum.accumulate(np.where(opens | closes, np.arange(len(tokens)), -1))
    is_open = (last_switch >= 0) & opens[last_switch]
    weights = np.full(len(tokens), instruction_weight, dtype=np.float32)
    weights[1:][is_open[:-1]] = 1.0
    return weights
