"""Rows of tokens put together from pieces of documents, without a Python loop over rows or tokens.

A segment says: so many tokens, from that place of that store, into this row. Rows are planned as
segments, round by round over the rows that are not full, and read at the end in one go.
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

    A store is a long row of token ids. Pieces of one row follow each other in their order.
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


class Stores:
    """Stores of token ids, each in parts that follow each other, such as the parts of a token file.

    A piece lies in one part. Which part that is, is looked up for all pieces at once.
    """

    def __init__(self, stores: Sequence[Sequence[Array]]) -> None:
        """Take the parts of each store; a store may have none."""
        self._parts = [part for parts in stores for part in parts]
        ends = np.cumsum([0, *map(len, self._parts)])
        self._first_places = ends[:-1]
        self._bases = ends[np.cumsum([0, *map(len, stores)])[:-1]]

    def read(self, stores: Array, starts: Array, lengths: Array) -> Array:
        """Return the pieces `[start, start + length)` of stores, concatenated, int64."""
        is_read = lengths > 0
        places = (self._bases[stores] + starts)[is_read]
        numbers = np.searchsorted(self._first_places, places, side="right") - 1
        begins = places - self._first_places[numbers]
        ends = begins + lengths[is_read]
        # One slice a piece: three times as fast as to compute the place of every token.
        pieces = [
            self._parts[number][begin:end]
            for number, begin, end in zip(
                numbers.tolist(), begins.tolist(), ends.tolist(), strict=True
            )
        ]
        return np.concatenate(pieces).astype(np.int64)


def read_rows(
    planned: Sequence[Segments], stores: Stores, *, num_rows: int, row_length: int
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
    lengths = np.clip(row_length - _columns(rows, lengths), 0, lengths)
    # Every row is full, so the pieces in their order are the rows.
    return stores.read(store_of, starts, lengths).reshape(num_rows, row_length)


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
