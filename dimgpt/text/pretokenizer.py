"""Splits cleaned text into the words that tokens never cross.

Words are runs of letters, of digits, or of anything else; a run of spaces gives its last space to
the word behind it. Tabulations and line ends are words of their own. It does not look at any
vocabulary.
"""

import re

from dimgpt.text.alphabet import ALPHABET
from dimgpt.text.special_tokens import NEW_LINE, TAB

_LETTERS = "".join(filter(str.isalpha, ALPHABET))
_OTHERS = rf"[^{_LETTERS}0-9 \t\n]"
WORD_PATTERN = rf" ?[{_LETTERS}]+| ?{_OTHERS}+| ?[0-9]+|[\t\n]| +(?= [^ \t\n])| +"
"""Matches one word, in Python's regular expressions and in Oniguruma's."""

_WORD = re.compile(WORD_PATTERN)


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
