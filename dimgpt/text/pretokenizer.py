"""Splits cleaned text into the words that tokens never cross.

Words are runs of letters, of digits, or of anything else; a run of spaces gives its last space to
the word behind it. Tabulations and line ends are words of their own. It does not look at any
vocabulary.
"""

import re
from collections.abc import Iterator

from dimgpt.text.alphabet import ALPHABET
from dimgpt.text.special_tokens import NEW_LINE, TAB

_LETTERS = "".join(filter(str.isalpha, ALPHABET))
_OTHERS = rf"[^{_LETTERS}0-9 \t\n]"
WORD_PATTERN = rf" ?[{_LETTERS}]+| ?{_OTHERS}+| ?[0-9]+|[\t\n]| +(?= [^ \t\n])| +"
"""Matches one word, in Python's regular expressions and in Oniguruma's."""

_WORD = re.compile(WORD_PATTERN)
_SINGLE_SPACE = re.compile("(?<! ) ")
_SEGMENT_CHARACTERS = 1 << 20


def split_words(text: str) -> list[str]:
    """Split a cleaned text; joined, the words are the text.

    >>> split_words("L'an  2024⮜new-line⮞ Oui!")
    ['L', "'", 'an', ' ', ' 2024', '⮜new-line⮞', ' Oui', '!']
    """
    spell = {"\t": TAB, "\n": NEW_LINE}
    plain = text.replace(TAB, "\t").replace(NEW_LINE, "\n")
    return [spell.get(word, word) for word in split_plain_words(plain)]


def split_plain_words(text: str) -> list[str]:
    r"""Split a text in which tabulations and line ends are `\t` and `\n`."""
    return _WORD.findall(text)


def split_at_spaces(text: str) -> list[str]:
    r"""Split a plain text where it costs least, into stretches that no word crosses.

    Spaces are the separators, of several the first: all stretches but the first follow a space that
    belongs to their first word.

    >>> split_at_spaces("L'an  2024\n Oui!")
    ["L'an", ' 2024\n', 'Oui!']
    """
    return _SINGLE_SPACE.split(text) if "  " in text else text.split(" ")


def cut_between_words(text: str, length: int = _SEGMENT_CHARACTERS) -> Iterator[str]:
    """Cut a plain text into segments that no word crosses, to bound what is made of each.

    Args:
        text: Any length; a short text is its only segment.
        length: Characters a segment has at least, the last one excepted. It ends with a word, so
            that only a long word makes a long segment.
    """
    start = 0
    while start < len(text):
        word = _WORD.match(text, start + length)  # or its end, if the cut falls inside of it
        end = word.end() if word else len(text)
        yield text[start:end]
        start = end
