"""DimensionGPT's rule for sources whose words and signs stand apart, as in tokenized news.

It comes before the general cleaning, which writes « and » as straight quotes again: what remains of
the last step is that an opening quote has no space after it and a closing one none before it.
"""

import re

_SPACED_SIGNS = ((" ,", ","), (" .", "."), (" )", ")"), ("( ", "("), (" ]", "]"), ("[ ", "["))
_DIGITS_AROUND_COMMA = re.compile(r"(\d)\s*,\s*(\d)")


def detokenize(text: str) -> str:
    r"""Remove the spaces that tokenization put around signs, and pair straight quotes.

    Each step is one pass, so that of two spaces before a comma one stays. Quotes alternate over the
    whole text, and an odd last one stays open.

    >>> detokenize('Il dit : " oui , non . " ( 3 , 5 % ) [ a ]')
    'Il dit : « oui, non. » (3,5 %) [a]'
    """
    for spaced, sign in _SPACED_SIGNS:
        text = text.replace(spaced, sign)
    text = _DIGITS_AROUND_COMMA.sub(r"\1,\2", text)
    first, *others = text.split('"')
    quoted = ("«»"[place % 2] + part for place, part in enumerate(others))
    return first + "".join(quoted)
