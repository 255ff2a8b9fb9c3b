"""The ten tokens that are no text: their names in a vocabulary file and their ids.

Their ids are the first ten of every vocabulary. Nothing parses them out of text: code that wants
one inserts its id.
"""

from dataclasses import dataclass

TAB = "⮜tab⮞"
NEW_LINE = "⮜new-line⮞"

SPECIAL_TOKENS = (
    "⮜unknown⮞",
    "⮜padding⮞",
    "⮜start-of-text⮞",
    TAB,
    NEW_LINE,
    "⮜human⮞",
    "⮜system⮞",
    "⮜user⮞",
    "⮜assistant⮞",
    "⮜end-of-text⮞",
)
"""In the order of their ids."""

SPECIAL_TOKEN_TEXTS = (
    "\N{REPLACEMENT CHARACTER}",
    "",
    "\n\n---------- START OF TEXT ----------\n\n",
    "\t",
    "\n",
    "\n\n--- Human ---\n\n",
    "\n\n--- System ---\n\n",
    "\n\n--- User ---\n\n",
    "\n\n--- Assistant ---\n\n",
    "\n\n---------- END OF TEXT ----------\n\n",
)
"""What each of them reads as in decoded text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpecialTokens:
    """Ids of the special tokens, positions in `SPECIAL_TOKENS`."""

    unknown: int = 0
    """A character that the vocabulary lacks."""
    padding: int = 1
    """Fills up a sequence; no loss on it."""
    start_of_text: int = 2
    """Before a document."""
    tab: int = 3
    """A tabulation of the text."""
    new_line: int = 4
    """A line end of the text."""
    human: int = 5
    """Before a message between people."""
    system: int = 6
    """Before a system prompt."""
    user: int = 7
    """Before a message to the assistant."""
    assistant: int = 8
    """Before an answer of the assistant."""
    end_of_text: int = 9
    """After a document."""
