"""The special tokens: their names in a vocabulary file and their ids.

Their ids are the first ten of every vocabulary of DimensionGPT; other tokenizers have some of them,
under other ids. Text never becomes one: code that needs one inserts its id.
"""

from dataclasses import dataclass

TAB = "⮜tab⮞"
NEW_LINE = "⮜new-line⮞"

SPECIAL_TOKEN_TEXTS = {
    "⮜unknown⮞": "\N{REPLACEMENT CHARACTER}",
    "⮜padding⮞": "",
    "⮜start-of-text⮞": "\n\n---------- START OF TEXT ----------\n\n",
    TAB: "\t",
    NEW_LINE: "\n",
    "⮜human⮞": "\n\n--- Human ---\n\n",
    "⮜system⮞": "\n\n--- System ---\n\n",
    "⮜user⮞": "\n\n--- User ---\n\n",
    "⮜assistant⮞": "\n\n--- Assistant ---\n\n",
    "⮜end-of-text⮞": "\n\n---------- END OF TEXT ----------\n\n",
}
"""Name -> text in decoded output, in the order of their ids."""

SPECIAL_TOKENS = tuple(SPECIAL_TOKEN_TEXTS)


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecialTokens:
    """Ids of the special tokens; `None` if a tokenizer has no such token.

    The defaults are DimensionGPT's, positions in `SPECIAL_TOKENS`.
    """

    unknown: int | None = 0
    """A character that the vocabulary lacks."""
    padding: int | None = 1
    """Fills up a sequence; no loss on it."""
    start_of_text: int | None = 2
    """Before a document."""
    human: int | None = 5
    """Before a message of a conversation between humans."""
    system: int | None = 6
    """Before a system prompt."""
    user: int | None = 7
    """Before a message to the assistant."""
    assistant: int | None = 8
    """Before an answer of the assistant."""
    end_of_text: int = 9
    """After a document."""
    others: tuple[int, ...] = ()
    """Further special tokens, which never occur in text."""

    @property
    def never_produced(self) -> list[int]:
        """The ids that never occur in text or an answer, sorted: roles, padding, start, others."""
        ids = {self.unknown, self.padding, self.start_of_text, *self.others}
        ids |= {self.human, self.system, self.user, self.assistant}
        return sorted(id for id in ids - {self.end_of_text} if id is not None)
