"""The mixture beside the one that is to be repeated: shares of the groups, and missing text.

Shares are of what is drawn, in proportion to size × multiplier. Nothing here changes a draw.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dimgpt.config import DataConfig, SourceConfig
from dimgpt.data.reading.pretraining import Corpus

# Shares further apart than this are told.
_TOLERANCE = 0.01


def mixture_rows(corpus: Corpus, published: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the rows of `Corpus.table`, with the shares of the groups beside the published ones.

    The first row of a group has its two shares; they are blank where no share is published.
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
    """Say which groups are far from their published share, by the tokens of the training split."""
    sizes = [file.num_tokens for file in corpus.train.files]
    return _shortfalls(corpus.sources, sizes, published, lambda size: f"{size:,.0f} tokens")


def expected_shortfalls(data: DataConfig) -> list[str]:
    """Say which groups will be far from their published share, before anything is read.

    Nothing is said unless every source has `expected_bytes`.
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
    """Return a sentence for each group whose share is more than a point off."""
    if not any(source.group in published for source in sources):
        return []  # other texts than those whose mixture is published
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
                f"{text}; {amount(missing)} are missing. It is drawn as it is, and the shares of "
                f"the other groups rise. A multiplier of {changed} reaches the share: each of its "
                "documents is then drawn that many times while one of multiplier 1 is drawn once"
            )
    return lines
