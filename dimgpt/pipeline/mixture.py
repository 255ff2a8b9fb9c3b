"""Compares a mixture of sources with a published one: shares of the groups, and missing text.

The share of a group is its part of the drawn text, in proportion to size × multiplier. This module
only reports; it changes no draw.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dimgpt.config import DataConfig, SourceConfig
from dimgpt.data.reading.pretraining import Corpus

# Larger differences between two shares are reported.
_TOLERANCE = 0.01


def mixture_rows(corpus: Corpus, published: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the rows of `Corpus.table`, with the share of each group and the published share.

    The first row of a group has both shares; they are blank if no share is published.
    """
    rows, told = corpus.table(), {""}
    for row in rows:
        group = row["group"]
        is_first = group in published and group not in told
        told.add(group)
        if published:
            whole = sum(other["ratio"] for other in rows if other["group"] == group)
            row["group ratio"] = whole if is_first else ""
        row["published"] = published[group] if is_first else ""
    return rows


def corpus_shortfalls(corpus: Corpus, published: Mapping[str, float]) -> list[str]:
    """Return a sentence for each group that is far from its published share of training tokens."""
    sizes = [file.num_tokens for file in corpus.train.files]
    return _shortfalls(corpus.sources, sizes, published, lambda size: f"{size:,.0f} tokens")


def expected_shortfalls(data: DataConfig) -> list[str]:
    """Return a sentence for each group that will be far from its published share, before reading.

    Returns none unless every source has `expected_bytes`.
    """
    sizes = [
        min(source.expected_bytes or 0, source.max_bytes or float("inf")) for source in data.sources
    ]
    if not all(sizes):
        return []
    published = data.published_shares
    return _shortfalls(data.sources, sizes, published, lambda size: f"{size / 1e9:,.2f} GB of text")


def _shortfalls(
    sources: Sequence[SourceConfig],
    sizes: Sequence[float],
    published: Mapping[str, float],
    amount: Callable[[float], str],
) -> list[str]:
    """Return a sentence for each group whose share is off by more than `_TOLERANCE`."""
    if not any(source.group in published for source in sources):
        return []  # texts without a published mixture
    weights = [size * source.multiplier for size, source in zip(sizes, sources, strict=True)]
    lines = []
    for group, share in published.items():
        own = [place for place, source in enumerate(sources) if source.group == group]
        size, weight = sum(sizes[place] for place in own), sum(weights[place] for place in own)
        others = sum(weights) - weight
        reached = weight / (weight + others)
        text = f"{group}: {reached:.1%} of the mixture instead of {share:.1%}"
        if reached > share + _TOLERANCE:
            lines.append(f"{text}; other groups have too little text, which raises its share")
        elif reached < share - _TOLERANCE and not weight:
            lines.append(f"{text}; it has no source, and the shares of the other groups rise")
        elif reached < share - _TOLERANCE:
            needed = share / (1 - share) * others  # size × multiplier that reaches the share
            missing, factor = needed * size / weight - size, needed / weight
            changed = ", ".join(
                f"{multiplier * factor:.3g} instead of {multiplier:g}"
                for multiplier in sorted({sources[place].multiplier for place in own})
            )
            lines.append(
                f"{text}; {amount(missing)} are missing, and the shares of the other groups rise. "
                f"A multiplier of {changed} reaches the share: each document of the group is then "
                "drawn that many times while one of multiplier 1 is drawn once"
            )
    return lines
