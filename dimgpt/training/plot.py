"""The curves of a run, drawn from its history file.

Since the file is all they need, they survive a kernel restart, and a second notebook can watch a
run of the first.
"""

import io
import time
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dimgpt.training.metrics import read_history

_COLOURS = {"train": "#9db4d6", "average": "#1f5fa8", "validation": "#d9531e"}


def plot_history(path: Path, *, title: str = "") -> Figure:
    """Draw loss and accuracy of a run against the tokens it has seen.

    Raises:
        FileNotFoundError: The run has not written anything yet.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no history at {path}: start the training first")
    records = read_history(path)
    steps = [record for record in records if record["kind"] == "step"]
    validations = [record for record in records if record["kind"] == "validation"]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    figure.suptitle(title)
    for axes, value in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for name, rows, key in (
            ("train", steps, value),
            ("average", steps, f"{value}_average"),
            ("validation", validations, value),
        ):
            tokens = [row["tokens"] / 1e6 for row in rows]
            style = {"marker": "o", "markersize": 3} if name == "validation" else {}
            axes.plot(tokens, [row[key] for row in rows], color=_COLOURS[name], label=name, **style)
        axes.set_xlabel("million tokens")
        axes.set_ylabel(value if value == "accuracy" else "loss (nats per token)")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
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
