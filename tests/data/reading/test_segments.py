import numpy as np
import pytest

from dimgpt.data.reading.segments import (
    Segments,
    Stores,
    draw_indices,
    fill_rows,
    find_documents,
    look_up,
    read_rows,
)


def make(rows, stores, starts, lengths):
    arrays = (np.array(values) for values in (rows, stores, starts, lengths))
    return Segments(**dict(zip(("rows", "stores", "starts", "lengths"), arrays, strict=True)))


def test_rows_are_read_piece_by_piece_and_cut_at_their_end():
    stores = [np.arange(100, 120, dtype=np.uint16), np.arange(200, 220, dtype=np.uint32)]
    planned = [
        make([0, 1, 1], [0, 1, 0], [3, 0, 0], [2, 4, 0]),
        make([0], [1], [10], [1]),
        make([0, 0], [0, 1], [18, 5], [1, 9]),
    ]
    rows = read_rows(planned, Stores([[store] for store in stores]), num_rows=2, row_length=4)
    assert rows.dtype == np.int64
    assert rows.tolist() == [[103, 104, 210, 118], [200, 201, 202, 203]]


def test_random_plans_are_read_as_a_plain_loop_reads_them():
    generator = np.random.default_rng(0)
    stores = [np.arange(1000 * store, 1000 * store + 50) for store in range(3)]

    def draw(rows, is_beginning):
        count = 2 * len(rows)
        lengths = generator.integers(1, 9, count)
        starts = generator.integers(0, 40, count)
        return make(np.repeat(rows, 2), generator.integers(0, 3, count), starts, lengths)

    planned = fill_rows(draw, num_rows=7, row_length=20)
    expected = [[] for _ in range(7)]
    for part in planned:
        for row, store, start, length in zip(
            part.rows, part.stores, part.starts, part.lengths, strict=True
        ):
            expected[row].extend(stores[store][start : start + length])
    whole = Stores([[store] for store in stores])
    in_parts = Stores([[store[:48], store[48:]] for store in stores])
    for read_from in (whole, in_parts):
        rows = read_rows(planned, read_from, num_rows=7, row_length=20)
        assert rows.tolist() == [row[:20] for row in expected]


def test_a_store_may_have_many_parts_or_none():
    stores = Stores([[], [np.array([1, 2]), np.array([3])], [], [np.array([4, 5])]])
    which, starts, lengths = np.array([[1, 1, 0, 3, 1], [0, 2, 0, 1, 1], [2, 1, 0, 1, 1]])
    assert stores.read(which, starts, lengths).tolist() == [1, 2, 3, 5, 2]


def test_full_rows_draw_no_more():
    asked = []

    def draw(rows, is_beginning):
        asked.append((rows.tolist(), is_beginning))
        return make(rows, rows * 0, rows * 0, 3 + 4 * rows)

    fill_rows(draw, num_rows=2, row_length=7)
    assert asked == [([0, 1], True), ([0], False), ([0], False)]


def test_indices_are_drawn_by_their_ratios():
    drawn = draw_indices(np.array([0.2, 0.0, 0.8]), np.random.default_rng(0), 10_000)
    shares = np.bincount(drawn, minlength=3) / 10_000
    assert shares == pytest.approx([0.2, 0.0, 0.8], abs=0.02)


def test_places_are_found_in_several_tables():
    offsets = [np.array([0, 3, 5]), np.array([0, 10])]
    which = np.array([0, 1, 0, 0])
    assert look_up(offsets, which, np.array([1, 1, 0, 2])).tolist() == [3, 10, 0, 5]
    assert find_documents(offsets, which, np.array([2, 9, 3, 4])).tolist() == [0, 0, 1, 1]
