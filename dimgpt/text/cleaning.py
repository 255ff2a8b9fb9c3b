"""Rewrites text in the alphabet of the vocabularies, as DimensionGPT did, and splits it into words.

Lost are decomposed accents, spaces at the ends, lone carriage returns, skin tones, and flags
without a stand-in. Special tokens that a text spells lose their brackets, which are outside the
alphabet, and become ordinary words.

Tokens never cross words. Words are runs of letters, of digits, or of anything else; the last of
several spaces belongs to the word after it. Tabs and line ends are words of their own.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

from unidecode import unidecode

from dimgpt.text.alphabet import ALPHABET, ASCII, CIRCLED_DIGITS, REPLACEMENTS, STAND_INS
from dimgpt.text.special_tokens import NEW_LINE, TAB

_PLAIN_ASCII = (ASCII + "\t\n").encode()
_PLAIN = frozenset(ALPHABET + "\t\n").difference(CIRCLED_DIGITS)
_MAX_REPLACED_CHARACTERS = 32  # each costs a fast pass over the text
_EMOJI_OF_STAND_INS = {stand_in: emoji for emoji, stand_in in STAND_INS.items()}
_STAND_IN = re.compile(f"[{''.join(_EMOJI_OF_STAND_INS)}]")
_LETTERS = "".join(filter(str.isalpha, ALPHABET))
_OTHERS = rf"[^{_LETTERS}0-9 \t\n]"
WORD_PATTERN = rf" ?[{_LETTERS}]+| ?{_OTHERS}+| ?[0-9]+|[\t\n]| +(?= [^ \t\n])| +"
"""Matches one word, in the regular expressions of Python and of Oniguruma."""

_WORD = re.compile(WORD_PATTERN)
_SINGLE_SPACE = re.compile("(?<! ) ")
_SEGMENT_CHARACTERS = 1 << 20


def clean_text(text: str, *, compose_accents: bool = False) -> str:
    r"""Write a text in the alphabet.

    >>> clean_text("« Œuvre »\t— 東京 ⮜user⮞")
    '"Œuvre"⮜tab⮞- Dong Jing  user'

    Args:
        text: Any string, lone surrogates included.
        compose_accents: Compose decomposed accents (Unicode NFC) first instead of losing them.

    Returns:
        Characters of `ALPHABET`, with `⮜tab⮞` and `⮜new-line⮞` for tabulations and line ends.
    """
    text = normalize_text(text, compose_accents=compose_accents)
    return text.replace("\t", TAB).replace("\n", NEW_LINE)


def normalize_text(text: str, *, compose_accents: bool = False) -> str:
    """Do as `clean_text`, but keep tabs and line ends."""
    if compose_accents:
        text = unicodedata.normalize("NFC", text)
    if foreign := _foreign_characters(text):
        text = _replace_foreign(text, foreign)
    if "\n" in text:
        text = _collapse_lines(text)
    return text.strip()


def restore_text(text: str) -> str:
    r"""Replace the stand-ins of a cleaned text by the original characters.

    >>> restore_text(clean_text("a\n❤\ufe0f")) == "a\n❤\ufe0f"
    True
    """
    text = text.replace(TAB, "\t").replace(NEW_LINE, "\n")
    return _STAND_IN.sub(lambda match: _EMOJI_OF_STAND_INS[match[0]], text)


def _foreign_characters(text: str) -> set[str]:
    """Return the characters of a text that cleaning changes.

    Deleting plain ASCII first is three times as fast as a regular expression.
    """
    data = text.encode("utf-8", "surrogatepass").translate(None, _PLAIN_ASCII)
    return set(data.decode("utf-8", "surrogatepass")) - _PLAIN


def _replace_foreign(text: str, foreign: set[str]) -> str:
    """Replace the characters of `text` that cleaning changes, given as `foreign`."""
    if "\r" in foreign:
        text = text.replace("\r", "")
    text = _replace_sequences(text, REPLACEMENTS, foreign)
    for digit in foreign.intersection(CIRCLED_DIGITS):
        text = text.replace(digit, transliterate(digit))
    text = _replace_sequences(text, STAND_INS, foreign)
    others = foreign.difference(CIRCLED_DIGITS)
    if len(others) > _MAX_REPLACED_CHARACTERS:  # one slow pass instead of many fast ones
        table = {ord(character): character for character in set(text)}
        table |= {ord(other): transliterate(other) for other in others}
        return text.translate(table)
    for other in others:
        text = text.replace(other, transliterate(other))
    return text


def _replace_sequences(text: str, table: dict[str, str], foreign: set[str]) -> str:
    """Apply a table in its order; each source contains a foreign character."""
    for source, target in table.items():
        if not foreign.isdisjoint(source):
            text = text.replace(source, target)
    return text


@lru_cache(maxsize=65_536)
def transliterate(character: str) -> str:
    """Write one character with ASCII, tabs and line ends; the result is often empty."""
    if "\ud800" <= character <= "\udfff":  # lone surrogates make unidecode warn
        return ""
    result = unidecode(character).replace("--", "-")
    return "".join(letter for letter in result if letter in ASCII or letter in "\t\n")


def _collapse_lines(text: str) -> str:
    """Drop spaces, then tabs, at line ends, and all but one of several empty lines.

    A space before a tab at a line end stays, as in the original.
    """
    for character in " \t":
        length = 1
        while character * length + "\n" in text:
            length *= 2
        while length > 1:  # few passes over any run, five times as fast as a regular expression
            length //= 2
            text = text.replace(character * length + "\n", "\n")
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text


def split_words(text: str) -> list[str]:
    r"""Split a cleaned text in which tabulations and line ends are `\t` and `\n`.

    >>> split_words("L'an  2024\n Oui!")
    ['L', "'", 'an', ' ', ' 2024', '\n', ' Oui', '!']
    """
    return _WORD.findall(text)


def split_at_spaces(text: str) -> list[str]:
    r"""Split a plain text cheaply into stretches that no word crosses.

    The separators are single spaces, and the first of several. Every stretch but the first had a
    space before it, which belongs to its first word.

    >>> split_at_spaces("L'an  2024\n Oui!")
    ["L'an", ' 2024\n', 'Oui!']
    """
    return _SINGLE_SPACE.split(text) if "  " in text else text.split(" ")


def cut_between_words(text: str, length: int = _SEGMENT_CHARACTERS) -> Iterator[str]:
    """Cut a plain text into segments that no word crosses, to limit memory.

    Args:
        text: Any length; a short text is its only segment.
        length: Minimum of characters in a segment, except the last one. A segment ends at the end
            of a word.
    """
    start = 0
    while start < len(text):
        word = _WORD.match(text, start + length)  # the rest of a word, if the cut is inside of it
        end = word.end() if word else len(text)
        yield text[start:end]
        start = end
