"""Chat formats: how a conversation is written in tokens.

A `ChatFormat` is plain data. `ChatIds` binds a format to a tokenizer; it gives the ids of messages,
the tokens that the model learns, and the tokens that end an answer. Special tokens are inserted by
their ids, so text of a user never becomes one. `chat_template.py` writes a format for other
programs.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dimgpt.text.special_tokens import SPECIAL_TOKENS


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatFormat:
    """One way to write conversations, in the names of special tokens and plain text."""

    name: str
    special_tokens: tuple[str, ...]
    """Special tokens in openers and closers; everything else in them is text."""
    openers: Mapping[str, str]
    """Role -> what comes before its message; a special token begins it."""
    closers: Mapping[str, str]
    """Role -> what comes after its message, if anything."""
    learned: tuple[str, ...]
    """Roles whose messages the model learns."""
    stops: tuple[str, ...]
    """Special tokens that end a learned message; the model learns them, too."""
    beginning: str | None = None
    """Special token before the first message of a conversation."""
    end: str | None = None
    """Special token after the last message of a conversation."""
    other_role: str | None = None
    """Replaces a role without an opener; `None` drops its messages."""
    strips: bool = False
    """Drop white space before a message, which would merge with the opener's line end."""
    cleaned: str = ""
    """Characters that the tokenizer removes, and with them white space around a message."""


_START, _ROLES, _END = SPECIAL_TOKENS[2], SPECIAL_TOKENS[5:9], SPECIAL_TOKENS[9]

DIMENSIONGPT = ChatFormat(
    name="dimensiongpt",
    special_tokens=(_START, *_ROLES, _END),
    openers=dict(zip(("human", "system", "user", "assistant"), _ROLES, strict=True)),
    closers={},
    learned=("human", "assistant"),
    # The opener of the next message ends a message, so the user's opener is a stop.
    stops=(_ROLES[2], _END),
    beginning=_START,
    end=_END,
    other_role="human",
    cleaned="⮜⮞",
)
LILLM = ChatFormat(
    name="lillm",
    special_tokens=("<r0>", "<r1>", "</s>"),
    openers={"user": "<r0>user<r1>", "assistant": "<r0>assistant<r1>"},
    # `</r2>` is no token of lilLM's vocabulary: it is text, encoded together with the message.
    closers={"user": "</r2>", "assistant": "</s>"},
    learned=("assistant",),
    stops=("</s>",),
)
CHATML = ChatFormat(
    name="chatml",
    special_tokens=("<|im_start|>", "<|im_end|>"),
    openers={role: f"<|im_start|>{role}\n" for role in ("system", "user", "assistant")},
    closers=dict.fromkeys(("system", "user", "assistant"), "<|im_end|>\n"),
    learned=("assistant",),
    stops=("<|im_end|>",),
    strips=True,
)
CHAT_FORMATS = {chat.name: chat for chat in (DIMENSIONGPT, LILLM, CHATML)}


def find_chat_format(special_tokens: Mapping[str, int]) -> ChatFormat | None:
    """Return the first format that a tokenizer with these special tokens can write, if any."""
    formats = CHAT_FORMATS.values()
    return next((chat for chat in formats if special_tokens.keys() >= {*chat.special_tokens}), None)


class ChatIds:
    """A format in the ids of a tokenizer."""

    def __init__(
        self,
        chat_format: ChatFormat,
        special_tokens: Mapping[str, int],
        encode: Callable[[str], list[int]],
    ) -> None:
        """Bind a format.

        Args:
            chat_format: The description.
            special_tokens: Name of each special token of the tokenizer -> id.
            encode: Turns text into ids, none of them special.

        Raises:
            ValueError: The tokenizer lacks a token of the format.
        """
        if lacking := [name for name in chat_format.special_tokens if name not in special_tokens]:
            raise ValueError(
                f"chat format {chat_format.name!r} is written with {', '.join(lacking)}, and the "
                f"special tokens of this tokenizer are {', '.join(special_tokens)}: take the "
                "tokenizer of the model, or another model"
            )
        self.format, self._special_tokens, self._encode = chat_format, special_tokens, encode
        self._openers = {role: self._ids(text) for role, text in chat_format.openers.items()}
        self.learned_openers = tuple(tuple(self._openers[role]) for role in chat_format.learned)
        """Openers of the messages that the model learns."""
        self.stops = tuple(special_tokens[name] for name in chat_format.stops)
        """Ids that end a learned message."""
        self.beginning = [special_tokens[name] for name in (chat_format.beginning,) if name]
        """Ids before the first message of a conversation: one or none."""
        self.end = [special_tokens[name] for name in (chat_format.end,) if name]
        """Ids after the last message of a conversation: one or none."""

    @property
    def assistant_opener(self) -> list[int]:
        """Opener of an answer of the assistant."""
        return self._openers["assistant"]

    @property
    def user_opener(self) -> list[int]:
        """Opener of a message of the user."""
        return self._openers["user"]

    def role_of(self, role: str) -> str | None:
        """Return the role that a message is written as; `None` if the format omits it."""
        return role if role in self._openers else self.format.other_role

    def encode_message(self, role: str, text: str) -> list[int]:
        """Encode a message with its opener and closer; no ids if the format omits its role."""
        written = self.role_of(role)
        if written is None:
            return []
        text = text.lstrip() if self.format.strips else text
        return self._ids(self.format.openers[written], text, self.format.closers.get(written, ""))

    def _ids(self, opener: str, text: str = "", closer: str = "") -> list[int]:
        """Encode all text between two special tokens together, as other programs do."""
        names = f"({'|'.join(map(re.escape, self.format.special_tokens))})"
        *opening, before = re.split(names, opener)
        after, *closing = re.split(names, closer)
        ids: list[int] = []
        for place, piece in enumerate([*opening, before + text + after, *closing]):
            if place % 2:  # special tokens stand between texts, which may be empty
                ids.append(self._special_tokens[piece])
            elif piece:
                ids += self._encode(piece)
        return ids
