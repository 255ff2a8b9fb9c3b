"""The curves of a run, drawn from its history file.

Since the file is all they need, they survive a kernel restart, and a second notebook can watch a
run of the first.
"""

import io
import math
import time
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dimgpt.training.metrics import read_history

_PANELS = (
    ("loss", "loss (nats per token)"),
    ("accuracy", "accuracy"),
    ("bits_per_byte", "bits per byte of held-out text"),
)
_COLOURS = {"train": "#9db4d6", "average": "#1f5fa8", "validation": "#d9531e"}


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
