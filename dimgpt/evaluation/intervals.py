"""95 % confidence intervals of a ratio over documents, and of a share of right answers."""

import math
from typing import Any

import numpy as np

MIN_DOCUMENTS = 10
"""With fewer documents, the interval would be unreliable, so none is given."""
_Z = 1.959964  # of the normal distribution, 97.5 %


def ratio_margin(numerators: np.ndarray[Any, Any], denominators: np.ndarray[Any, Any]) -> float:
    """Return half of the 95 % confidence interval of a ratio of two sums over documents.

    A loss is such a ratio: nats over tokens. Tokens of one document are not independent, so the
    documents are the sample. Each document is left out once, and the spread of the N ratios gives
    the error: the jackknife, Efron and Stein 1981, https://doi.org/10.1214/aos/1176345462. If a few
    long documents contain most of the text, the interval covers the truth in less than 95 % of
    cases.

    Args:
        numerators: Sum of each document, (N,).
        denominators: Sum of each document, (N,); any N - 1 of them must have a positive sum.

    Returns:
        Half of the interval, in the unit of the ratio; NaN for fewer than `MIN_DOCUMENTS`.
    """
    count = len(numerators)
    if count < MIN_DOCUMENTS:
        return math.nan
    rest = denominators.sum() - denominators
    if not (rest > 0).all():
        return math.nan
    ratios = (numerators.sum() - numerators) / rest
    error = math.sqrt((count - 1) / count * ((ratios - ratios.mean()) ** 2).sum())
    return _student(count - 1) * error


def share_interval(num_right: int, count: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share of right answers, if answers are independent.

    Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953; it stays within 0..1.

    Raises:
        ValueError: There are no answers.
    """
    if count < 1:
        raise ValueError(f"count is {count}: a share needs at least one answer")
    share, square = num_right / count, _Z**2 / count
    middle = (share + square / 2) / (1 + square)
    half = _Z / (1 + square) * math.sqrt(share * (1 - share) / count + square / 4 / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def _student(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t; the error is below 1 % from 4 degrees of freedom.

    Abramowitz and Stegun 1964, 26.7.5.
    """
    first = (_Z**3 + _Z) / (4 * degrees)
    return _Z + first + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * degrees**2)
