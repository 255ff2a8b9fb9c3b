"""Claim: a curve fitted to small runs predicts the loss of runs that it was not fitted to.

The curve is `dimgpt.sizing.Curve`. It is fitted to the runs of `recipes.py`, reference and modern
recipe, and to a few smaller runs. Then each size is left out in turn, and predicted by a curve that
is fitted to the others.

`run` trains the missing smaller runs, and saves each in benchmarks/results/sizing.json. `report`
prints the curve, and the predicted and the reached losses side by side.

    python benchmarks/sizing.py run
    python benchmarks/sizing.py report
"""

import argparse
import functools
import itertools
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

import numpy as np  # noqa: E402

from benchmarks.recipes import RECIPES, RESULTS, Run, load_results, run_all, train  # noqa: E402
from benchmarks.recipes_report import best_rate  # noqa: E402
from dimgpt.sizing import Curve  # noqa: E402

OWN_RESULTS = ROOT / "benchmarks" / "results" / "sizing.json"
OPTIMIZERS = {"reference": "adamw", "modern": "muon"}
OWN_RUNS = tuple(
    Run(size=size, parts=RECIPES[recipe], rate=rate, share=share)
    for size, recipe, rate, share in (
        ("tiny", "modern", 0.01, 0.4),
        ("tiny", "modern", 0.01, 1.0),
        ("mini", "modern", 0.01, 0.4),
        ("mini", "modern", 0.01, 1.0),
        ("tiny", "reference", 6e-3, 1.0),
        ("mini", "reference", 6e-3, 1.0),
    )
)
"""One seed each, at rates that were not tuned."""
FLOOR, POWERS = 0.6, (0.34, 0.28)
"""Those of Hoffmann et al. 2022, who fitted large runs: 1.69 nats a token at some 4 bytes a token.

Small runs do not show the floor, so it stays. A power that is 0.1 off counts like an error of 1 %.
"""


class Point(NamedTuple):
    """The runs of one size, recipe and number of tokens."""

    size: str
    recipe: str
    parameters: int
    tokens: int
    bits_per_byte: float
    """On the test split, the mean of the seeds."""
    seeds: int


LARGER = (
    Point("french-5m", "reference", 4_800_768, 13_107_200, 1.419, 1),
    Point("french-5m-modern", "modern", 4_801_024, 13_107_200, 1.381, 1),
)
"""Runs of docs/results.md: a vocabulary of 8,000 tokens, and three sources of validation together.

The second is the modern recipe with a tied output.
"""


def points_of(results: Iterable[dict[str, Any]]) -> list[Point]:
    """Return the points of reference and modern recipe, at the best rate for their tokens."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for result in results:
        for recipe in OPTIMIZERS:
            if tuple(result["parts"]) == RECIPES[recipe]:
                groups.setdefault((result["size"], recipe, result["tokens"]), []).append(result)
    points = []
    for (size, recipe, tokens), runs in groups.items():
        rate = best_rate(run for run in runs if run["seed"] == 0)
        found = [run for run in runs if run["rate"] == rate]
        mean = statistics.mean(run["bits_per_byte"] for run in found)
        points.append(Point(size, recipe, found[0]["parameters"], tokens, mean, len(found)))
    return points


def fit(points: Sequence[Point]) -> Curve:
    """Return the curve of the least squares of relative errors.

    Powers and share are tried on a grid; the two factors then are a linear problem.
    """
    parameters, tokens, reached = (
        np.array([point[column] for point in points]) for column in (2, 3, 4)
    )
    is_reference = np.array([point.recipe == "reference" for point in points])
    best, lowest = None, np.inf
    powers = np.arange(0.1, 0.8, 0.04)
    shares = np.arange(0.1, 1.01, 0.02) if is_reference.any() else np.ones(1)
    text = tokens / 1e6 * np.where(is_reference, shares[:, None], 1.0)
    target = 1 - FLOOR / reached
    for model_power, text_power in itertools.product(powers, powers):
        by_model = np.broadcast_to((parameters / 1e6) ** -model_power, text.shape)
        terms = np.stack((by_model, text**-text_power), axis=1) / reached  # (shares, 2, points)
        factors = (np.linalg.pinv(terms.transpose(0, 2, 1)) @ target)[:, :, None]
        errors = np.sum(((factors * terms).sum(axis=1) - target) ** 2, axis=1)
        errors += ((model_power - POWERS[0]) ** 2 + (text_power - POWERS[1]) ** 2) * 0.1**2
        errors[(factors[:, :, 0] <= 0).any(axis=1)] = np.inf
        if errors[place := errors.argmin()] < lowest:
            lowest = errors[place]
            best = (model_power, text_power, shares[place], *factors[place, :, 0])
    if best is None:
        raise ValueError(f"{len(points)} points give no curve: train more with `sizing.py run`")
    names = ("model_power", "text_power", "adamw_share", "model_factor", "text_factor")
    fitted = {name: round(float(value), 4) for name, value in zip(names, best, strict=True)}
    return Curve(floor=FLOOR, **fitted)


def compare(curve: Curve, points: Iterable[Point]) -> list[str]:
    """Return a row of a table for each point: what the curve predicts, and what was reached."""
    rows = []
    for point in points:
        predicted = predict(curve, point)
        rows.append(
            f"| {point.size} | {point.recipe} | {point.parameters:,} | "
            f"{point.tokens / 1e6:.2f} M | {point.seeds} | {predicted:.3f} | "
            f"{point.bits_per_byte:.3f} | {predicted / point.bits_per_byte - 1:+.1%} |"
        )
    return rows


def predict(curve: Curve, point: Point) -> float:
    """Return the bits per byte that a curve gives for a point."""
    optimizer = OPTIMIZERS[point.recipe]
    return curve.bits_per_byte(point.parameters, point.tokens, optimizer=optimizer)


def report(points: Sequence[Point]) -> str:
    """Return the curve, each size predicted by a curve without it, and the fit's own errors."""
    head = [
        "| size | recipe | parameters | tokens | seeds | predicted | reached | error |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    unseen: list[str] = []
    sizes = list(dict.fromkeys(point.size for point in points))
    for size in sizes:
        others = [point for point in points if point.size != size]
        if len({point.size for point in others}) > 1:
            unseen += compare(fit(others), [point for point in points if point.size == size])
    curve = fit(points)
    largest = compare(curve, LARGER)
    return "\n".join(
        [repr(curve), "", "Each size by a curve that was fitted to the others:", "", *head, *unseen]
        + ["", "Larger runs, which were not fitted:", "", *head, *largest]
        + ["", "What was fitted:", "", *head, *compare(curve, points)]
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["run", "report"])
    if parser.parse_args().action == "run":
        own_train = functools.partial(train, validations=1)
        run_all(lambda results: OWN_RUNS, own_train, OWN_RESULTS, jobs=1)
    else:
        results = [*load_results(RESULTS).values(), *load_results(OWN_RESULTS).values()]
        print(report(points_of(results)))


if __name__ == "__main__":
    main()
