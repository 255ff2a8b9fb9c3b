"""Rows put together from pieces, which pretraining and fine-tuning share."""

import numpy as np
import pytest

from dimgpt.data.reading.pretraining import (
    Tokens,
    draw_indices,
    draw_rows,
    find_documents,
    look_up,
)


def pieces(tokens, rows, files, starts, lengths):
    rows, files, starts, lengths = map(np.array, (rows, files, starts, lengths))
    return rows, tokens.starts[files] + starts, lengths


def test_rows_are_read_piece_by_piece_and_cut_at_their_end():
    files = [np.arange(100, 120, dtype=np.uint16), np.arange(200, 220, dtype=np.uint32)]
    tokens = Tokens([[file] for file in files])
    planned = iter(
        [
            pieces(tokens, [0, 1, 1], [0, 1, 0], [3, 0, 0], [2, 4, 0]),
            pieces(tokens, [0], [1], [10], [1]),
            pieces(tokens, [0, 0], [0, 1], [18, 5], [1, 9]),
        ]
    )
    rows = draw_rows(lambda rows, _: next(planned), tokens, num_rows=2, row_length=4)
    assert rows.dtype == np.int64
    assert rows.tolist() == [[103, 104, 210, 118], [200, 201, 202, 203]]
    assert next(planned, None) is None


@pytest.mark.parametrize("cut", [50, 48])
def test_random_pieces_are_read_as_a_plain_loop_reads_them(cut):
    generator = np.random.default_rng(0)
    files = [np.arange(1000 * file, 1000 * file + 50) for file in range(3)]
    tokens = Tokens([[file[:cut], file[cut:]] for file in files])
    expected = [[] for _ in range(7)]

    def draw(rows, is_beginning):
        count = 2 * len(rows)
        rows, chosen = np.repeat(rows, 2), generator.integers(0, 3, count)
        starts, lengths = generator.integers(0, 40, count), generator.integers(1, 9, count)
        for row, file, start, length in zip(rows, chosen, starts, lengths, strict=True):
            expected[row].extend(files[file][start : start + length])
        return pieces(tokens, rows, chosen, starts, lengths)

    rows = draw_rows(draw, tokens, num_rows=7, row_length=20)
    assert rows.tolist() == [row[:20] for row in expected]


def test_a_file_may_have_many_parts_or_none():
    tokens = Tokens([[], [np.array([1, 2]), np.array([3])], [], [np.array([4, 5])], []])
    files, starts, lengths = np.array([[1, 1, 0, 3, 1, 4], [0, 2, 0, 1, 1, 0], [2, 1, 0, 1, 1, 0]])
    assert tokens.read(tokens.starts[files] + starts, lengths).tolist() == [1, 2, 3, 5, 2]


def test_full_rows_draw_no_more():
    asked = []

    def draw(rows, is_beginning):
        asked.append((rows.tolist(), is_beginning))
        return rows, rows * 0, 3 + 4 * rows

    draw_rows(draw, Tokens([[np.arange(9)]]), num_rows=2, row_length=7)
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
