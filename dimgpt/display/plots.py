"""Plots: the curves of a run, and the report of a preparation.

Curves are drawn only from the run's history file, so they survive a kernel restart, and a second
notebook can watch a run of the first. Nothing here computes the values.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from dimgpt.data.preparing.report import SourceReport
from dimgpt.display.tables import Picture
from dimgpt.training.journal import read_history

_PANELS = {
    "loss": "loss (nats per token)",
    "accuracy": "accuracy",
    "bits_per_byte": "bits per byte of held-out text",
    "scores": "loss (nats per word)",
}
_COLOURS = {"train": "#9db4d6", "average": "#1f5fa8", "validation": "#d9531e"}
_KINDS: dict[str, dict[str, Any]] = {
    "step": {"alpha": 0.3, "linewidth": 0.8},
    "validation": {"linewidth": 1.8, "marker": "o", "markersize": 3},
}
_SOURCE_COLOURS = "#1f5fa8 #d9531e #3c8d5a #8a5fb0 #c79a1b #4aa3b5 #a8475f #6b7280".split()


def plot_history(path: Path, *, title: str = "") -> Figure:
    """Draw loss and accuracy against the tokens seen; bits per byte and scores if measured.

    The run may still be active, in this process or another.

    Raises:
        FileNotFoundError: The run has not written anything yet.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no history at {path}: start the training first")
    records = read_history(path)
    steps = [record for record in records if record["kind"] == "step"]
    validations = [record for record in records if record["kind"] == "validation"]
    measured = [record for record in validations if "bits_per_byte" in record]
    scored = [record | record["scores"] for record in validations if "scores" in record]
    is_drawn = {"bits_per_byte": measured, "scores": scored}
    panels = [key for key in _PANELS if is_drawn.get(key, True)]
    figure, grid = _figure_of(len(panels))
    figure.suptitle(title)
    for axes, key in zip(grid, panels, strict=True):
        if key == "bits_per_byte":
            _draw(axes, measured, key, "validation")
        elif key == "scores":
            for number, name in enumerate(scored[0]["scores"]):
                _draw(axes, scored, name, name.replace("_", " "), colour=_colour(number))
        else:
            _draw(axes, steps, key, "train")
            _draw(axes, steps, f"{key}_average", "average")
            _draw(axes, validations, key, "validation")
        axes.set(xlabel="million tokens", ylabel=_PANELS[key])
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, framealpha=0.7, edgecolor="none")
    return figure


def _figure_of(num_panels: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels in two columns; the first of an odd number fills its row."""
    num_rows, is_odd = (num_panels + 1) // 2, num_panels % 2
    figure = Figure(figsize=(8, 3.2 * num_rows), layout="constrained")
    grid = figure.add_gridspec(num_rows, 2)
    places = [grid[0, :]] * is_odd
    places += [grid[number // 2, number % 2] for number in range(2 * is_odd, 2 * num_rows)]
    panels = [figure.add_subplot(place) for place in places]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _draw(
    axes: Axes, rows: list[dict[str, Any]], key: str, name: str, *, colour: str | None = None
) -> None:
    tokens = [row["tokens"] / 1e6 for row in rows]
    # What was not finite is null in the file, and a gap in the curve.
    values = [math.nan if row[key] is None else row[key] for row in rows]
    marker = "o" if name not in ("train", "average") else None
    axes.plot(
        tokens, values, color=colour or _COLOURS[name], label=name, marker=marker, markersize=3
    )


def plot_comparison(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw the losses of several runs against tokens, hours and FLOPs, a colour a run.

    Training losses far above all validations are cut off.

    Args:
        curves: Label -> records with `kind` (`step` or `validation`), `loss`, `tokens`, `seconds`
            and `flops`; a `None` is a gap.
    """
    rows_of_all = [row for rows in curves.values() for row in rows]
    validations = [row["loss"] or math.nan for row in rows_of_all if row["kind"] == "validation"]
    highest = max(filter(math.isfinite, validations), default=None)
    panels = {
        "tokens": ("tokens", 1.0),
        "seconds": ("hours of training", 3600.0),
        "flops": ("FLOPs, forward and backward", 1.0),
    }
    figure, grid = _figure_of(len(panels))
    for axes, (key, (label, unit)) in zip(grid, panels.items(), strict=True):
        for place, rows in enumerate(curves.values()):
            for kind, style in _KINDS.items():
                points = [(row[key], row["loss"]) for row in rows if row["kind"] == kind]
                x, y = np.array(points, dtype=float).reshape(-1, 2).T
                axes.plot(x / unit, y, color=_colour(place), **style)
        axes.set(xlabel=label, ylabel=_PANELS["loss"])
        axes.locator_params(axis="x", nbins=6)
        if highest:  # the first steps, which are far above, would press all curves together
            axes.set_ylim(top=1.15 * highest)
        if key == "tokens":
            axes.xaxis.set_major_formatter(EngFormatter())
        axes.grid(alpha=0.25)
    runs = [Line2D([], [], color=_colour(place), label=run) for place, run in enumerate(curves)]
    kinds = [
        Line2D([], [], color="black", label={"step": "training"}.get(kind, kind), **style)
        for kind, style in _KINDS.items()
    ]
    figure.legend(handles=runs + kinds, loc="outside lower center", ncols=3, frameon=False)
    return figure


class LivePlot:
    """Observer that redraws the curves in the notebook cell that trains.

    Args:
        history_path: The run's `history.jsonl`.
        seconds: Shortest time between two drawings.
    """

    def __init__(self, history_path: Path, *, seconds: float = 20.0) -> None:
        self._path, self._seconds = history_path, seconds
        self._drawn_at = time.monotonic()
        self._handle: Any = None

    def __call__(self, record: dict[str, Any]) -> None:
        """Draw after a validation, at most every `seconds`."""
        if record["kind"] != "validation" or time.monotonic() < self._drawn_at + self._seconds:
            return
        from IPython.display import display

        picture = Picture(figure=plot_history(self._path))
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)
        self._drawn_at = time.monotonic()


def plot_report(reports: Sequence[SourceReport]) -> Figure:
    """Draw the lengths of documents, the tokens of each group, and the dropped documents.

    Raises:
        ValueError: There is no report.
    """
    if not reports:
        raise ValueError("there is no report to draw: prepare a source first")
    figure, grid = _figure_of(3)
    for axes, draw in zip(grid, (_draw_lengths, _draw_tokens, _draw_dropped), strict=True):
        draw(axes, reports)
    return figure


def _colour(place: int) -> str:
    return _SOURCE_COLOURS[place % len(_SOURCE_COLOURS)]


def _draw_lengths(axes: Axes, reports: Sequence[SourceReport]) -> None:
    """Draw the share of the documents in each range of lengths, a line a source."""
    lines = {}
    for place, report in enumerate(reports):
        if report.lengths:
            starts, counts = np.array(sorted(report.lengths.items())).T
            middles, shares = starts * 1.2, 100 * counts / counts.sum()
            (lines[report.source],) = axes.plot(
                middles, shares, color=_colour(place), linewidth=1.8, marker="o", markersize=3
            )
    axes.set(
        title="How long documents are",
        xlabel="characters of a document",
        ylabel="% of the source's documents",
        xscale="log",
        ylim=(0, None),
    )
    axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.grid(alpha=0.25)
    if lines:
        axes.legend(list(lines.values()), list(lines), frameon=False, fontsize=8)


def _draw_tokens(axes: Axes, reports: Sequence[SourceReport]) -> None:
    """Draw a bar a group, made of its sources; a source without a group has its own bar."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for place, report in enumerate(reports):
        part = (report.num_tokens, _colour(place))
        groups.setdefault(report.group or report.source, []).append(part)
    bars = sorted(groups.items(), key=lambda bar: sum(width for width, _ in bar[1]))
    short = EngFormatter(places=1)
    for height, (_, parts) in enumerate(bars):
        left = 0
        for width, colour in parts:
            axes.barh(height, width, left=left, color=colour, height=0.6, edgecolor="white")
            left += width
        axes.text(left, height, f" {short(left)}", va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.margins(x=0.12)
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.set(title="What each group gives", xlabel="tokens", xlim=(0, None))


def _draw_dropped(axes: Axes, reports: Sequence[SourceReport]) -> None:
    """Draw the share of dropped documents of each source, by reason."""
    reasons = sorted({reason for report in reports for reason in report.dropped})
    shown = reports[::-1]  # the first source on top
    seen = [max(report.num_documents + report.dropped.total(), 1) for report in shown]
    left = np.zeros(len(shown))
    for place, reason in enumerate(reasons):
        widths = 100 * np.array([report.dropped[reason] for report in shown]) / np.array(seen)
        label = reason.replace("_", " ")
        axes.barh(range(len(shown)), widths, 0.6, left, color=_colour(place), label=label)
        left += widths
    axes.set_yticks(range(len(shown)), [report.source for report in shown])
    axes.set(
        title="What was left out",
        xlabel="% of the source's documents",
        xlim=(0, max(1.0, 1.1 * float(left.max()))),
        ylim=(-0.6, len(shown) - 0.4),
    )
    if reasons:
        axes.legend(frameon=False, fontsize=8)
    else:
        axes.text(0.5, 0.5, "nothing", transform=axes.transAxes, ha="center", color="gray")
