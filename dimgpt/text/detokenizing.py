"""DimensionGPT's rule for sources with spaces around punctuation, as in tokenized news.

It runs before the general cleaning, which turns « and » into straight quotes again. So the pairing
of quotes only removes the space after an opening quote and before a closing one.
"""

import re

_SPACED_SIGNS = ((" ,", ","), (" .", "."), (" )", ")"), ("( ", "("), (" ]", "]"), ("[ ", "["))
_DIGITS_AROUND_COMMA = re.compile(r"(\d)\s*,\s*(\d)")


def detokenize(text: str) -> str:
    r"""Remove the spaces that tokenization put around punctuation, and pair straight quotes.

    Each step is one pass, so one of two spaces before a comma stays. Quotes alternate over the
    complete text, and an odd last one stays open.

    >>> detokenize('Il dit : " oui , non . " ( 3 , 5 % ) [ a ]')
    'Il dit : « oui, non. » (3,5 %) [a]'
    """
    for spaced, sign in _SPACED_SIGNS:
        text = text.replace(spaced, sign)
    text = _DIGITS_AROUND_COMMA.sub(r"\1,\2", text)
    first, *others = text.split('"')
    quoted = ("«»"[place % 2] + part for place, part in enumerate(others))
    return first + "".join(quoted)
