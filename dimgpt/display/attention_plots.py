"""Plots of the attention of one layer."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

_EDGE = "#d9531e"
_MOST_NAMED = 48  # tokens beside which there is room for their names


def plot_attention(
    weights: Any, tokens: Sequence[str], *, window_size: int | None, head: int | None = None
) -> Figure:
    """Draw the weight with which each token (row) reads each earlier one (column).

    A line marks the beginning of each token's window. The colour follows the square root of the
    weight, so that weak weights stay visible.

    Args:
        weights: Of one layer, (H, T, T), in 0..1.
        tokens: T names, written beside a single head; none leaves them out.
        window_size: Of that layer; `None` draws no line.
        head: Draw this head alone, large; `None` draws all of them, small.

    Raises:
        ValueError: The layer has no such head.
    """
    values = np.asarray(weights, dtype=float)
    if head is not None and not 0 <= head < len(values):
        raise ValueError(f"head is {head}: the layer has heads from 0 to {len(values) - 1}")
    heads = range(len(values)) if head is None else [head]
    num_columns = min(4, math.ceil(math.sqrt(len(heads))))
    num_rows = math.ceil(len(heads) / num_columns)
    size = (7.5, 6.5) if head is not None else (3.2 * num_columns + 0.8, 3.1 * num_rows)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    for axes in grid.flat[len(heads) :]:
        axes.set_visible(False)
    for axes, number in zip(grid.flat, heads, strict=False):
        image = axes.imshow(values[number], cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
        axes.set_title(f"head {number}", fontsize=10)
        _draw_window(axes, values.shape[-1], window_size)
        _name_tokens(axes, tokens if head is not None else ())
    figure.colorbar(image, ax=grid, label="share of what the token reads", shrink=0.8)
    return figure


def _draw_window(axes: Axes, num_tokens: int, window_size: int | None) -> None:
    if window_size is None or window_size >= num_tokens - 1:
        return
    rows = np.arange(window_size, num_tokens + 1) - 0.5
    axes.step(rows - window_size, rows, where="pre", color=_EDGE, linewidth=1.2)
    axes.set(xlim=(-0.5, num_tokens - 0.5), ylim=(num_tokens - 0.5, -0.5))


def _name_tokens(axes: Axes, tokens: Sequence[str]) -> None:
    if not 0 < len(tokens) <= _MOST_NAMED:
        axes.set(xticks=[], yticks=[])
        return
    names = [token if len(token) <= 14 else f"{token[:6]}…{token[-6:]}" for token in tokens]
    names = [name.replace("$", r"\$") for name in names]  # a $ would begin a formula
    size = 8 if len(names) <= 32 else 7
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size, family="monospace")
    axes.set_yticks(range(len(names)), names, fontsize=size, family="monospace")
    axes.set(xlabel="reads from", ylabel="token")
