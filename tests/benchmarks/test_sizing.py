"""The fit of the curve of losses, on points that a known curve gives."""

import pytest

from benchmarks.sizing import OPTIMIZERS, Point, fit, points_of, predict, report
from dimgpt.sizing import Curve

TRUE = Curve(
    floor=0.6,
    model_factor=0.5,
    model_power=0.34,
    text_factor=0.8,
    text_power=0.28,
    adamw_share=0.5,
)


def point(size, recipe, parameters, tokens):
    loss = TRUE.bits_per_byte(parameters, tokens, optimizer=OPTIMIZERS[recipe])
    return Point(size, recipe, parameters, tokens, loss, 1)


POINTS = [
    point("a", "modern", 300_000, 400_000),
    point("a", "modern", 300_000, 1_000_000),
    point("b", "reference", 800_000, 1_000_000),
    point("b", "modern", 800_000, 1_000_000),
    point("c", "modern", 2_000_000, 3_000_000),
]


def test_the_fit_predicts_a_size_that_it_has_not_seen():
    curve = fit(POINTS)
    unseen = point("d", "reference", 5_000_000, 13_000_000)
    assert predict(curve, unseen) == pytest.approx(unseen.bits_per_byte, rel=0.02)
    assert curve.adamw_share == pytest.approx(0.5, abs=0.05)


@pytest.mark.slow
def test_the_report_has_predicted_and_reached_loss_of_each_size_left_out():
    unseen = report(POINTS).split("not fitted")[0]
    assert [unseen.count(f"| {size} |") for size in "abc"] == [2, 2, 1]


def test_a_point_is_the_mean_of_the_seeds_at_the_best_rate():
    run = {"size": "small", "parts": (), "share": 1.0, "parameters": 10, "tokens": 20}
    runs = [
        run | {"rate": rate, "seed": seed, "bits_per_byte": bits, "validation": [[20, loss]]}
        for rate, seed, bits, loss in ((0.1, 0, 2.0, 4.0), (0.1, 1, 2.2, 9.0), (0.2, 0, 1.0, 5.0))
    ]
    assert points_of(runs) == [Point("small", "reference", 10, 20, pytest.approx(2.1), 2)]
