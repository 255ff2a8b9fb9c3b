"""Encoding as the original system does it: the baseline of `data_preparation`.

More than fifty replacements over the text, a function call for every character with membership
tests in lists and dicts, a loop for every word, slices for the longest match. The ids equal those
of `dimgpt.text`. Both share only the tables and the expression that splits words.
"""

from string import ascii_lowercase

from unidecode import unidecode

from dimgpt.text.alphabet import ALPHABET, ASCII, CIRCLED_DIGITS, REPLACEMENTS, STAND_INS
from dimgpt.text.cleaning import split_words
from dimgpt.text.special_tokens import NEW_LINE, TAB

# Letters first, since most characters are: in the order of Unicode it would be half as fast.
_ALLOWED = list(dict.fromkeys(ascii_lowercase + ALPHABET + "\t\n"))
_ALLOWED_AFTER_UNIDECODE = [*ASCII, "\t", "\n"]
_NAMES = {"\t": TAB, "\n": NEW_LINE}
_POSSIBLE_LINE_ENDS = (" \n", "\t\n", "\n\n\n")


def encode_plainly(text: str, ids: dict[str, int]) -> list[int]:
    """Clean and encode a text; `ids` holds the ten special tokens too."""
    encoded: list[int] = []
    for word in split_words(_clean(text)):
        word = _NAMES.get(word, word)
        if word in ids:
            encoded.append(ids[word])
        else:
            encoded += _longest_matches(word, ids)
    return encoded


def _clean(text: str) -> str:
    text = text.replace("\r", "")
    for source, target in REPLACEMENTS.items():
        text = text.replace(source, target)
    for digit in CIRCLED_DIGITS:
        text = text.replace(digit, unidecode(digit))
    for source, target in STAND_INS.items():
        text = text.replace(source, target)
    text = "".join([_clean_character(character) for character in text])
    for line_end in _POSSIBLE_LINE_ENDS:
        while line_end in text:
            text = text.replace(line_end, line_end[1:])
    return text.strip()


def _clean_character(character: str) -> str:
    if character in _ALLOWED:
        return character
    result = unidecode(character).replace("--", "-")
    return "".join([letter for letter in result if letter in _ALLOWED_AFTER_UNIDECODE])


def _longest_matches(word: str, ids: dict[str, int]) -> list[int]:
    matches = []
    start = 0
    while start < len(word):
        for length in range(min(16, len(word) - start), 0, -1):
            if word[start : start + length] in ids:
                matches.append(ids[word[start : start + length]])
                break
        else:
            length = 1
            matches.append(0)
        start += length
    return matches
