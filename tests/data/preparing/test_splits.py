import random

import numpy as np
import pytest

from dimgpt.data.preparing.splits import NUM_KEYS, Borders, cut_by_place, find_openings, split_key


def keys(count=10_000):
    return np.random.default_rng(0).integers(NUM_KEYS, size=count, dtype=np.uint64)


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.0), (0.1, 0.2), (0.0, 0.3), (0.5, 0.5)])
def test_splits_have_their_shares_and_do_not_overlap(validation, test):
    chosen = Borders.of(validation_ratio=validation, test_ratio=test).choose(keys())
    shares = {name: is_chosen.mean() for name, is_chosen in chosen.items()}
    assert sum(chosen.values()).tolist() == [1] * 10_000
    assert ("test" in chosen) == (test > 0)
    assert shares["validation"] == pytest.approx(validation, abs=0.02)
    assert shares.get("test", 0) == pytest.approx(test, abs=0.02)


def test_a_test_split_leaves_the_validation_documents_what_they_were():
    without = Borders.of(validation_ratio=0.1, test_ratio=0.0).choose(keys())
    with_test = Borders.of(validation_ratio=0.1, test_ratio=0.2).choose(keys())
    assert (without["validation"] == with_test["validation"]).all()


@pytest.mark.parametrize("validation", [0.0, 1e-9, 0.5, 1.0])
@pytest.mark.parametrize("test", [0.0, 1e-9, 0.5, 1.0])
@pytest.mark.parametrize("count", [3, 4, 100])
def test_no_split_of_few_documents_stays_empty(validation, test, count):
    if validation + test > 1:
        pytest.skip("more than all")
    some = keys(count)
    borders = Borders.of(validation_ratio=validation, test_ratio=test)
    filling = borders.filling(some)
    assert all(chosen.any() for chosen in filling.choose(some).values())
    if all(chosen.any() for chosen in borders.choose(some).values()):
        assert filling == borders


def test_fewer_keys_than_splits_cannot_fill_them():
    assert Borders.of(validation_ratio=0.1, test_ratio=0.0).filling(np.uint64([5, 5])) is None
    assert Borders.of(validation_ratio=0.1, test_ratio=0.1).filling(np.uint64([5, 6])) is None


@pytest.mark.parametrize("ratios", [[0.0], [0.1], [1.0], [0.05, 0.05]])
@pytest.mark.parametrize("sign", ["\n", " ", "a"])
def test_a_text_is_cut_behind_a_line_end_or_a_space(ratios, sign):
    text = (("a" * 49 + sign) * 1_000)[:-1]
    rest, *parts = cut_by_place(text, ratios)
    assert "".join([rest, *reversed(parts)]) == text
    assert len(parts) == len(ratios)
    for ratio, part in zip(ratios, parts, strict=True):
        wanted = min(max(round(ratio * len(text)), 2_000), len(text) // 10)
        assert wanted - 50 <= len(part) <= wanted
    assert all(piece.endswith(sign) for piece in [rest, *parts[1:]])


def test_a_short_text_is_not_cut():
    assert cut_by_place("a" * 399, [0.1]) is None
    rest, part = cut_by_place("a" * 400, [0.1])
    assert (len(rest), len(part)) == (360, 40)


def text(seed, count=60):
    return " ".join(random.Random(seed).choices(["chat", "chien", "cour", "dort"], k=count))


def test_what_many_texts_begin_with_counts_for_no_key():
    texts = [text("prompt") + text(number) for number in range(30)]
    openings = find_openings(texts)
    assert len({split_key(one, seed=0) for one in texts}) == 1
    assert len({split_key(one, seed=0, openings=openings) for one in texts}) == 30
    assert split_key(text(99), seed=0, openings=openings) == split_key(text(99), seed=0)


def test_openings_that_begin_alike_are_told_apart():
    texts = [text("prompt") + text(number % 3) + text(number) for number in range(30)]
    openings = find_openings(texts)
    assert len({split_key(one, seed=0, openings=openings) for one in texts}) >= 30


def test_near_copies_have_no_opening_of_their_own():
    few = [text(number) + f" {copy}" for number in range(10) for copy in range(4)]
    assert find_openings(few) == ()
    words = [text(number).split() for number in range(6) for _ in range(10)]
    changed = [" ".join([*w[:40], f"mot{n}", *w[41:]]) for n, w in enumerate(words)]
    assert find_openings(changed) == ()
    behind_one = [text("prompt") + one for one in changed]
    openings = find_openings(behind_one)
    assert len({split_key(one, seed=0, openings=openings) for one in behind_one}) == 6
    many = [text(number) + f" {copy}" for number in range(3) for copy in range(30)]
    openings = find_openings(many)
    assert len({split_key(one, seed=0, openings=openings) for one in many}) == 3
