"""Rows of tokens put together from pieces of documents, without a Python loop over rows or tokens.

A segment says: so many tokens, from that place of that store, into this row. Rows are planned as
segments, round by round over the rows that are not full, and read at the end in one go per store.
Which pieces are drawn is decided in `pretraining.py` and `finetuning.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Segments:
    """Pieces of stores, each for a row; four int64 arrays of one length.

    A store is an array of token ids. Pieces of one row follow each other in their order.
    """

    rows: Array
    stores: Array
    starts: Array
    """First token, in its store."""
    lengths: Array
    """Tokens, 0 or more."""


def fill_rows(
    draw: Callable[[Array, bool], Segments], *, num_rows: int, row_length: int
) -> list[Segments]:
    """Plan rows: draw pieces for every row that is not full yet, until all are.

    Args:
        draw: Takes the numbers of the rows to go on with, and whether this is their beginning;
            returns at least one token for each.
        num_rows: Rows to plan.
        row_length: Tokens of a row; what is drawn beyond is cut off when it is read.
    """
    planned: list[Segments] = []
    filled = np.zeros(num_rows, dtype=np.int64)
    while len(open_rows := np.flatnonzero(filled < row_length)):
        planned.append(draw(open_rows, not planned))
        np.add.at(filled, planned[-1].rows, planned[-1].lengths)
    return planned


def read_rows(
    planned: Sequence[Segments], stores: Sequence[Array], *, num_rows: int, row_length: int
) -> Array:
    """Read planned rows.

    Returns:
        Token ids, int64 (num_rows, row_length).
    """
    rows, store_of, starts, lengths = (
        np.concatenate([getattr(segments, name) for segments in planned])
        for name in ("rows", "stores", "starts", "lengths")
    )
    order = np.argsort(rows, kind="stable")
    rows, store_of, starts, lengths = (
        values[order] for values in (rows, store_of, starts, lengths)
    )
    column = _columns(rows, lengths)
    lengths = np.clip(row_length - column, 0, lengths)
    targets = rows * row_length + column
    ids = np.empty(num_rows * row_length, dtype=np.int64)
    for store in np.unique(store_of):
        chosen = np.flatnonzero(store_of == store)
        places = _ranges(starts[chosen], lengths[chosen])
        ids[_ranges(targets[chosen], lengths[chosen])] = stores[store][places]
    return ids.reshape(num_rows, row_length)


def draw_indices(ratios: Array, generator: np.random.Generator, count: int) -> Array:
    """Draw indices of `ratios` (float64, sum 1) with those probabilities, int64 (count,)."""
    borders = np.cumsum(ratios)
    # Rounding may leave the last border below 1: the clip keeps such a draw inside.
    drawn = np.searchsorted(borders, generator.random(count), side="right")
    return np.minimum(drawn, len(ratios) - 1)


def look_up(tables: Sequence[Array], which: Array, places: Array) -> Array:
    """Return `tables[which[i]][places[i]]` for every i, int64."""
    found = np.empty(len(which), dtype=np.int64)
    for table in np.unique(which):
        chosen = which == table
        found[chosen] = tables[table][places[chosen]]
    return found


def find_documents(offsets: Sequence[Array], which: Array, tokens: Array) -> Array:
    """Return the number of the document that holds token `tokens[i]` of store `which[i]`."""
    found = np.empty(len(which), dtype=np.int64)
    for store in np.unique(which):
        chosen = which == store
        found[chosen] = np.searchsorted(offsets[store], tokens[chosen], side="right") - 1
    return found


def _columns(rows: Array, lengths: Array) -> Array:
    """Return the column at which each segment begins; segments come sorted by row."""
    ends = np.cumsum(lengths)
    begins = ends - lengths
    is_first = np.diff(rows, prepend=-1) != 0
    row_begins = begins[is_first]
    return begins - np.repeat(row_begins, np.diff(np.flatnonzero(is_first), append=len(rows)))


def _ranges(starts: Array, lengths: Array) -> Array:
    """Concatenate the ranges [start, start + length)."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)
