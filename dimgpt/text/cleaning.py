"""Writes any text in the alphabet of the vocabularies, exactly as DimensionGPT did, and splits it.

Accepted losses: decomposed accents, spaces at the edges, lone carriage returns, skin tones, flags
that have no stand-in. Special tokens that a text spells lose their brackets, which are outside the
alphabet, and become ordinary words.

Tokens never cross words. Words are runs of letters, of digits, or of anything else; a run of spaces
gives its last space to the word behind it. Tabulations and line ends are words of their own.
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
"""Matches one word, in Python's regular expressions and in Oniguruma's."""

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
    """Do as `clean_text`, but leave tabulations and line ends as they are."""
    if compose_accents:
        text = unicodedata.normalize("NFC", text)
    if foreign := _foreign_characters(text):
        text = _replace_foreign(text, foreign)
    if "\n" in text:
        text = _collapse_lines(text)
    return text.strip()


def restore_text(text: str) -> str:
    r"""Turn the stand-ins of a cleaned text back into what they stand for.

    >>> restore_text(clean_text("a\n❤\ufe0f")) == "a\n❤\ufe0f"
    True
    """
    text = text.replace(TAB, "\t").replace(NEW_LINE, "\n")
    return _STAND_IN.sub(lambda match: _EMOJI_OF_STAND_INS[match[0]], text)


def _foreign_characters(text: str) -> set[str]:
    """Return the characters of a text that do not simply stay.

    Deleting plain ASCII first leaves little to look at: three times as fast as an expression.
    """
    data = text.encode("utf-8", "surrogatepass").translate(None, _PLAIN_ASCII)
    return set(data.decode("utf-8", "surrogatepass")) - _PLAIN


def _replace_foreign(text: str, foreign: set[str]) -> str:
    """Replace every character in `foreign`, which are those of `text` that do not stay."""
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
    """Apply a table in its order; each source holds a character that does not stay."""
    for source, target in table.items():
        if not foreign.isdisjoint(source):
            text = text.replace(source, target)
    return text


@lru_cache(maxsize=65_536)
def transliterate(character: str) -> str:
    """Write one character with ASCII, tabulations and line ends; often with nothing."""
    if "\ud800" <= character <= "\udfff":  # lone surrogates make unidecode warn
        return ""
    result = unidecode(character).replace("--", "-")
    return "".join(letter for letter in result if letter in ASCII or letter in "\t\n")


def _collapse_lines(text: str) -> str:
    """Drop spaces, then tabulations, at line ends, and all but one of several empty lines.

    A space before a tabulation at a line end stays, as in the original.
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
