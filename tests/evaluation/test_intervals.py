import math

import numpy as np
import pytest

from dimgpt.evaluation.intervals import ratio_margin, share_interval


def draw_corpora(generator, count, documents):
    """Nats and tokens of documents of very different lengths, longer ones easier to predict."""
    tokens = np.exp(generator.normal(5.5, 0.6, (count, documents))).round() + 2
    means = 3.5 - 0.1 * np.log(tokens) + generator.normal(0, 0.4, (count, documents))
    return tokens * means, tokens


@pytest.mark.slow
@pytest.mark.parametrize("documents", [10, 40, 150])
def test_about_95_of_100_intervals_hold_the_true_loss(documents):
    generator = np.random.default_rng(0)
    nats, tokens = draw_corpora(generator, 1, 1_000_000)
    truth = nats.sum() / tokens.sum()
    corpora = list(zip(*draw_corpora(generator, 2000, documents), strict=True))
    hits = [abs(n.sum() / t.sum() - truth) <= ratio_margin(n, t) for n, t in corpora]
    assert 0.92 <= np.mean(hits) <= 0.97


def test_tokens_counted_as_independent_would_give_a_far_too_narrow_interval():
    generator = np.random.default_rng(1)
    nats, tokens = draw_corpora(generator, 1, 100)
    within = 2.0 / math.sqrt(tokens.sum())  # of tokens with a deviation of 2 nats around 3
    assert ratio_margin(nats[0], tokens[0]) > 3 * within


def test_for_equal_documents_it_is_the_interval_of_a_mean():
    values = np.random.default_rng(2).normal(3, 1, 16)
    error = values.std(ddof=1) / 4
    assert ratio_margin(values * 7, np.full(16, 7)) == pytest.approx(2.131 * error, rel=1e-3)


def test_few_documents_have_no_interval():
    assert math.isnan(ratio_margin(np.ones(9), np.ones(9)))
    assert ratio_margin(np.ones(10), np.ones(10)) == 0.0
    only_one = np.array([5.0] + [0.0] * 9)
    assert math.isnan(ratio_margin(only_one, only_one))


@pytest.mark.parametrize(
    ("num_right", "count", "low", "high"),
    [
        (50, 100, 0.4038, 0.5962),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.255, 0.366),
    ],
)
def test_shares_have_wilsons_interval(num_right, count, low, high):
    assert share_interval(num_right, count) == pytest.approx((low, high), abs=5e-4)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(ValueError, match="count is 0"):
        share_interval(0, 0)
