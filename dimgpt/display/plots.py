"""Pictures: the curves of a run, and what a preparation has seen of its sources.

Curves are drawn from the run's history file alone, so they survive a kernel restart, and a second
notebook can watch a run of the first. Nothing here computes what is shown.
"""

import io
import math
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dimgpt.data.preparing.report import SourceReport
from dimgpt.training.journal import read_history

_PANELS = (
    ("loss", "loss (nats per token)"),
    ("accuracy", "accuracy"),
    ("bits_per_byte", "bits per byte of held-out text"),
)
_COLOURS = {"train": "#9db4d6", "average": "#1f5fa8", "validation": "#d9531e"}
_SOURCE_COLOURS = (
    "#1f5fa8",
    "#d9531e",
    "#3c8d5a",
    "#8a5fb0",
    "#c79a1b",
    "#4aa3b5",
    "#a8475f",
    "#6b7280",
)


def plot_history(path: Path, *, title: str = "") -> Figure:
    """Draw loss, accuracy and, where it was measured, bits per byte against the tokens seen.

    The run may be going on, in this process or another.

    Raises:
        FileNotFoundError: The run has not written anything yet.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no history at {path}: start the training first")
    records = read_history(path)
    steps = [record for record in records if record["kind"] == "step"]
    validations = [record for record in records if record["kind"] == "validation"]
    measured = [record for record in validations if "bits_per_byte" in record]
    panels = _PANELS if measured else _PANELS[:2]
    figure = Figure(figsize=(5 * len(panels), 3.6), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, len(panels))
    for each, (key, label) in zip(axes, panels, strict=True):
        if key == "bits_per_byte":
            _draw(each, measured, key, "validation")
        else:
            _draw(each, steps, key, "train")
            _draw(each, steps, f"{key}_average", "average")
            _draw(each, validations, key, "validation")
        each.set_xlabel("million tokens")
        each.set_ylabel(label)
        each.grid(alpha=0.25)
        each.spines[["top", "right"]].set_visible(False)
        each.legend(frameon=False)
    return figure


def _draw(axes: Axes, rows: list[dict[str, Any]], key: str, name: str) -> None:
    tokens = [row["tokens"] / 1e6 for row in rows]
    # What was not finite is null in the file, and a gap in the curve.
    values = [math.nan if row[key] is None else row[key] for row in rows]
    marker = "o" if name == "validation" else None
    axes.plot(tokens, values, color=_COLOURS[name], label=name, marker=marker, markersize=3)


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
        """Draw after a validation, but not too often."""
        if record["kind"] != "validation" or time.monotonic() < self._drawn_at + self._seconds:
            return
        from IPython.display import Image, display

        picture = io.BytesIO()
        plot_history(self._path).savefig(picture, format="png", dpi=100)
        image = Image(data=picture.getvalue())
        if self._handle is None:
            self._handle = display(image, display_id=True)
        else:
            self._handle.update(image)
        self._drawn_at = time.monotonic()


def plot_report(reports: Sequence[SourceReport]) -> Figure:
    """Draw the lengths of documents, the tokens of each group, and what was left out.

    Raises:
        ValueError: There is no report.
    """
    if not reports:
        raise ValueError("there is no report to draw: prepare a source first")
    colours = [_SOURCE_COLOURS[place % len(_SOURCE_COLOURS)] for place in range(len(reports))]
    figure = Figure(figsize=(14, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _draw_lengths(left, reports, colours)
    _draw_tokens(middle, reports, colours)
    _draw_dropped(right, reports)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_lengths(axes: Axes, reports: Sequence[SourceReport], colours: Sequence[str]) -> None:
    """Draw the share of the documents in each range of lengths, a line a source."""
    lines = {}
    for report, colour in zip(reports, colours, strict=True):
        if not report.num_documents:
            continue
        starts = sorted(report.lengths)
        counts = np.array([report.lengths[start] for start in starts])
        places = [start * 1.2 for start in starts]  # the middle of a bin
        style = {"color": colour, "linewidth": 1.8, "marker": "o", "markersize": 3}
        (line,) = axes.plot(places, 100 * counts / counts.sum(), **style)  # type: ignore[arg-type]
        lines[report.source] = line
    axes.set_xscale("log")
    axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.set_ylim(bottom=0)
    axes.set_title("How long documents are", fontsize=11)
    axes.set_xlabel("characters of a document")
    axes.set_ylabel("% of the source's documents")
    axes.grid(alpha=0.25)
    if lines:
        axes.legend(list(lines.values()), list(lines), frameon=False, fontsize=8)


def _draw_tokens(axes: Axes, reports: Sequence[SourceReport], colours: Sequence[str]) -> None:
    """Draw a bar a group, made of its sources."""
    pairs = sorted(zip(reports, colours, strict=True), key=lambda pair: _group_of(pair[0]))
    bars = [(name, list(members)) for name, members in groupby(pairs, lambda p: _group_of(p[0]))]
    bars.sort(key=lambda bar: sum(report.num_tokens for report, _ in bar[1]))
    unit, unit_name = _unit(max(report.num_tokens for report in reports))
    for height, (_, members) in enumerate(bars):
        left = 0.0
        for report, colour in members:
            width = report.num_tokens / unit
            axes.barh(height, width, left=left, color=colour, height=0.6, edgecolor="white")
            left += width
        axes.text(left, height, f" {left:,.3g}", va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_title("What each group gives", fontsize=11)
    axes.set_xlabel(f"{unit_name}tokens")


def _draw_dropped(axes: Axes, reports: Sequence[SourceReport]) -> None:
    """Draw the share of each source's documents that was left out, by reason."""
    reasons = sorted({reason for report in reports for reason in report.dropped})
    shown = reports[::-1]  # the first source on top
    seen = [max(report.num_documents + report.dropped.total(), 1) for report in shown]
    left = np.zeros(len(shown))
    for place, reason in enumerate(reasons):
        counts = [report.dropped[reason] for report in shown]
        widths = 100 * np.array(counts) / np.array(seen)
        colour = _SOURCE_COLOURS[place % len(_SOURCE_COLOURS)]
        label = reason.replace("_", " ")
        axes.barh(range(len(shown)), widths, left=left, color=colour, height=0.6, label=label)
        left += widths
    axes.set_yticks(range(len(shown)), [report.source for report in shown])
    axes.set_xlim(0, max(1.0, 1.1 * float(left.max())))
    axes.set_title("What was left out", fontsize=11)
    axes.set_xlabel("% of the source's documents")
    if reasons:
        axes.legend(frameon=False, fontsize=8)


def _group_of(report: SourceReport) -> str:
    return report.group or report.source


def _unit(largest: int) -> tuple[float, str]:
    for size, name in ((1e9, "billion "), (1e6, "million "), (1e3, "thousand ")):
        if largest >= size:
            return size, name
    return 1.0, ""
