"""The tables and the picture of `recipes.py`, from its saved runs."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Result = dict[str, Any]
Parts = tuple[str, ...]
MUON = "Muon"
WITH_MUON = ("faster embedding", "cautious decay")
"""Parts that need Muon."""


def best_rate(tries: Iterable[Result]) -> float:
    """Return the rate of the run with the lowest last validation loss."""
    rate: float = min(tries, key=lambda run: run["validation"][-1][1])["rate"]
    return rate


def around(part: str, whole: Parts) -> tuple[Parts, Parts, Parts]:
    """Return the base of a part, base and part together, and the recipe without or with it."""
    base: Parts = (MUON,) if part in WITH_MUON else ()
    gone = {MUON, *WITH_MUON} if part == MUON else {part}
    rest = tuple(other for other in whole if other not in gone)
    return base, (*base, part), rest if part in whole else (*whole, part)


def report(
    results: Iterable[Result],
    recipes: Mapping[str, Parts],
    parts: Mapping[str, Any],
    picture: Path,
) -> str:
    """Return the tables in Markdown, of each size as far as it was trained, and draw the curves.

    Args:
        results: What `recipes.train` returned.
        recipes: Name of a recipe -> its parts.
        parts: All parts, in order.
        picture: Gets validation losses against tokens and against time.
    """
    runs = sorted(results, key=lambda run: run["tokens"] / run["share"])
    sizes = list(dict.fromkeys(run["size"] for run in runs))
    chosen = {
        (size, name): _best(run for run in runs if (run["size"], run["parts"]) == (size, wanted))
        for size in sizes
        for name, wanted in recipes.items()
    }
    chosen = {key: found for key, found in chosen.items() if found}
    draw_curves(chosen, picture)
    tables = [compare_recipes(chosen, runs, recipes), compare_parts(runs, sizes[0], parts, chosen)]
    return "\n\n".join(tables)


def _best(runs: Iterable[Result]) -> list[Result]:
    """Return the runs of all steps at the rate with the lowest validation loss of seed 0."""
    whole = [run for run in runs if run["share"] == 1]
    tries = [run for run in whole if run["seed"] == 0]
    rate = best_rate(tries) if tries else None
    return [run for run in whole if run["rate"] == rate]


def compare_recipes(
    chosen: Mapping[tuple[str, str], list[Result]],
    runs: Sequence[Result],
    recipes: Mapping[str, Parts],
) -> str:
    """Return each size's recipes at equal tokens, and what the reference's result takes."""
    rows = [
        "| size | recipe | parameters | rate | tokens | bits per byte, test | CPU s | "
        "tokens to the reference's result | CPU s to it |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (size, name), found in chosen.items():
        reference = chosen.get((size, "reference"), [])
        few = [
            run
            for run in runs
            if (run["size"], run["parts"]) == (size, recipes[name])
            and run["rate"] == found[0]["rate"]
        ]
        needed = _share_needed(few, reference)
        seconds = statistics.mean(run["cpu_seconds"] for run in found)
        cells = [size, name, f"{found[0]['parameters']:,}", f"{found[0]['rate']:g}"]
        cells += [
            f"{found[0]['tokens'] / 1e6:.2f} M",
            _spread(run["bits_per_byte"] for run in found),
        ]
        cells += [f"{seconds:.0f}"]
        if needed is None:
            cells += ["", ""]
        else:
            base = statistics.mean(run["cpu_seconds"] for run in reference)
            cells += [f"{needed:.2f} ×", f"{needed * seconds / base:.2f} ×"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _share_needed(runs: Sequence[Result], reference: Sequence[Result]) -> float | None:
    """Return the share of the tokens with which a recipe gets as far as the reference does.

    In a straight line between the shares that were trained; `None` if those do not enclose it.
    """
    shares = sorted({run["share"] for run in runs})
    if len(shares) < 2 or not reference:
        return None
    goal = statistics.mean(run["bits_per_byte"] for run in reference)
    means = [
        statistics.mean(run["bits_per_byte"] for run in runs if run["share"] == share)
        for share in shares
    ]
    for i in range(len(shares) - 1):
        if means[i] >= goal >= means[i + 1]:
            way = (means[i] - goal) / (means[i] - means[i + 1])
            return shares[i] + way * (shares[i + 1] - shares[i])
    return None


def compare_parts(
    runs: Sequence[Result],
    size: str,
    parts: Iterable[str],
    chosen: Mapping[tuple[str, str], list[Result]],
) -> str:
    """Return the effect of each part alone, and of leaving it out or adding it, by seed."""
    reference, whole = (chosen.get((size, name), []) for name in ("reference", "modern"))
    if not whole:
        return ""
    complete = (run for run in runs if run["size"] == size and run["share"] == 1)
    of = {(run["parts"], run["rate"], run["seed"]): run for run in complete}
    everything: Parts = whole[0]["parts"]
    rates = {False: reference[0]["rate"], True: whole[0]["rate"]}
    rows = [
        "| part | alone | left out of modern | added to modern |",
        "| --- | --- | --- | --- |",
    ]

    def change(after: Parts, before: Parts) -> str:
        differences = [
            found["bits_per_byte"] - other["bits_per_byte"]
            for (run_parts, rate, seed), found in of.items()
            if run_parts == after
            and rate == rates[MUON in after]
            and (other := of.get((before, rates[MUON in before], seed))) is not None
        ]
        return _spread(differences, sign="+") if differences else ""

    for part in parts:
        base, both, rest = around(part, everything)
        others = ["", change(rest, everything)]
        if part in everything:
            others.reverse()
        rows.append(f"| {part} | {change(both, base)} | {others[0]} | {others[1]} |")
    return "\n".join(rows)


def _spread(values: Iterable[float], *, sign: str = "") -> str:
    """Write the mean of a few values, and the lowest and highest."""
    found = list(values)
    mean, low, high = statistics.mean(found), min(found), max(found)
    return f"{mean:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f}, {len(found)})"


def draw_curves(chosen: Mapping[tuple[str, str], list[Result]], picture: Path) -> None:
    """Draw the validation loss of every recipe and size: the mean, and the range of the seeds."""
    from matplotlib.figure import Figure

    sizes = list(dict.fromkeys(size for size, _ in chosen))
    figure = Figure(figsize=(10, 3.2 * len(sizes)), layout="constrained")
    axes = figure.subplots(len(sizes), 2, squeeze=False, sharey="row")
    colours = {"reference": "C0", "modern": "C1", "experts": "C3"}
    for (size, name), runs in chosen.items():
        row = axes[sizes.index(size)]
        seconds = statistics.mean(run["cpu_seconds"] for run in runs)
        tokens = [place for place, _ in runs[0]["validation"]]
        losses = list(zip(*([loss for _, loss in run["validation"]] for run in runs), strict=True))
        for axis, scale in ((row[0], 1e-6), (row[1], seconds / tokens[-1])):
            places = [place * scale for place in tokens]
            axis.plot(places, list(map(statistics.mean, losses)), color=colours[name], label=name)
            low, high = list(map(min, losses)), list(map(max, losses))
            axis.fill_between(places, low, high, color=colours[name], alpha=0.2)
        row[0].set(ylabel="validation loss, nats a token", xlabel="million tokens", title=size)
        row[1].set(xlabel="processor seconds", title=size)
    axes[0][0].legend()
    for axis in axes.flat:
        axis.grid(alpha=0.3)
        top = axis.get_ylim()[1]
        axis.set_ylim(top=min(top, 7.0))
    figure.savefig(picture, dpi=110)
