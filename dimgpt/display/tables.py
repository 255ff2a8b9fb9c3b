"""Tables, coloured text and pictures for notebooks and terminals.

A notebook shows their HTML, a terminal their text. Nothing here computes the values.
"""

import dataclasses
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_COLOURS = ("#cfe3ff", "#ffe3bf", "#d5f2d0", "#f6d3e6", "#e4d9fb", "#fff3b0")
_CELL = "padding:0.25em 0.6em;text-align:left;border-bottom:1px solid #8884"
_BOX = (
    "max-height:20em;overflow:auto;border:1px solid #8884;padding:0.4em;"
    "font-family:monospace;white-space:pre-wrap"
)
_LEGEND_SHADES = 5
_TOKEN = "padding:0.1em 0.05em;border-radius:0.25em;color:#111;white-space:pre-wrap"


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Table:
    """Rows under a header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    num_shown: int | None = None
    """A notebook folds the rows after these; `None` shows all."""

    @classmethod
    def of(
        cls,
        values: Mapping[str, Any] | Iterable[Any],
        *,
        title: str = "",
        first: Sequence[str] = (),
    ) -> "Table":
        """Make a table.

        Args:
            values: A mapping, whose entries become rows of two columns; or mappings or dataclass
                instances, each of which becomes a row.
            title: Title above the table.
            first: Names of a mapping that come first. A notebook shows them and folds the others.
        """
        if isinstance(values, Mapping):
            ordered = {name: values[name] for name in first} | dict(values)
            pairs = ((name, _cell(value)) for name, value in ordered.items())
            shown = len(first) or None
            return cls(header=("", ""), rows=tuple(pairs), title=title, num_shown=shown)
        records = [_fields(value) for value in values]
        header = tuple(records[0]) if records else ()
        rows = tuple(tuple(_cell(value) for value in record.values()) for record in records)
        return cls(header=header, rows=rows, title=title)

    def __repr__(self) -> str:
        lines = [self.header, *self.rows] if any(self.header) else list(self.rows)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [self.title] if self.title else []
        for line in lines:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            text.append("".join(f"  {cell}" for cell in cells).rstrip())
        return "\n".join(text)

    def _repr_html_(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            inner = (f"<{tag} style='{_CELL}'>{html.escape(cell)}</{tag}>" for cell in cells)
            return f"<tr>{''.join(inner)}</tr>"

        def table(head: str, rows: Sequence[Sequence[str]]) -> str:
            body = "".join(row(cells, "td") for cells in rows)
            return f"<table style='border-collapse:collapse'>{head}{body}</table>"

        head = row(self.header, "th") if any(self.header) else ""
        shown = table(head, self.rows[: self.num_shown])
        if folded := self.rows[self.num_shown or len(self.rows) :]:
            shown += f"<details><summary>{len(folded)} more</summary>{table('', folded)}</details>"
        return f"{_caption(self.title)}{shown}"


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Scrolling:
    """A long text, in a box of a few lines that scrolls."""

    text: str
    title: str = ""

    def __repr__(self) -> str:
        return f"{self.title}\n{self.text}".lstrip("\n")

    def _repr_html_(self) -> str:
        return f"{_caption(self.title)}<div style='{_BOX}'>{html.escape(self.text)}</div>"


def _caption(title: str) -> str:
    return f"<b>{html.escape(title)}</b>" if title else ""


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class ColouredTokens:
    """A text cut into tokens, each with its own colour, and its id on hover.

    `shades`, in 0..1 and one a token, colours them by a number instead: loss weight, surprisal.
    """

    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    shades: tuple[float, ...] | None = None
    notes: tuple[str, ...] | None = None
    """Said beside the id of each token."""
    legend: str = ""
    """What the shades are; said beside each id, and with samples in a line under the text."""

    def __repr__(self) -> str:
        return "|".join(self.tokens)

    def _repr_html_(self) -> str:
        spans = []
        for place, (token, id) in enumerate(zip(self.tokens, self.ids, strict=True)):
            colour = _COLOURS[place % len(_COLOURS)]
            note = self.notes[place] if self.notes else ""
            if self.shades is not None:
                colour = _shade(self.shades[place])
                note = note or (self.legend and f"{self.legend} {self.shades[place]:.3g}")
            hint = f"{id}: {note}" if note else f"{id}"
            shown = html.escape(token).replace("\n", "⏎\n")
            spans.append(
                f"<span title='{html.escape(hint)}' style='{_TOKEN};background:{colour}'>"
                f"{shown}</span>"
            )
        return (
            "<div style='line-height:1.9;font-family:monospace;background:#fff;padding:0.6em;"
            f"overflow-wrap:anywhere'>{''.join(spans)}{self._legend_html()}</div>"
        )

    def _legend_html(self) -> str:
        """Return a sample of each shade; if there are many, of the weakest and the strongest."""
        shown = sorted(set(self.shades or ())) if self.legend else []
        if not shown:
            return ""
        shown = shown if len(shown) <= _LEGEND_SHADES else [shown[0], shown[-1]]
        samples = (
            f"<span style='{_TOKEN};background:{_shade(shade)}'> {shade:.3g} </span>"
            for shade in shown
        )
        words = f"{html.escape(self.legend)}: {' '.join(samples)}"
        return f"<div style='color:#111;border-top:1px solid #8884;margin-top:0.6em'>{words}</div>"


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Bars:
    """Names with a share each, as horizontal bars."""

    names: tuple[str, ...]
    ratios: tuple[float, ...]

    def __repr__(self) -> str:
        width = max(map(len, self.names), default=0)
        return "\n".join(
            f"{name.ljust(width)} {'█' * round(40 * ratio)} {ratio:.1%}"
            for name, ratio in zip(self.names, self.ratios, strict=True)
        )

    def _repr_html_(self) -> str:
        rows = (
            f"<tr><td style='{_CELL};font-family:monospace;white-space:pre'>{html.escape(name)}"
            f"</td><td style='width:24em'><div style='background:#1f5fa8;height:0.9em;"
            f"width:{100 * ratio:.1f}%'></div></td><td style='{_CELL}'>{ratio:.1%}</td></tr>"
            for name, ratio in zip(self.names, self.ratios, strict=True)
        )
        return f"<table style='border-collapse:collapse'>{''.join(rows)}</table>"


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Picture:
    """A figure of matplotlib that a notebook shows."""

    figure: Any

    def __repr__(self) -> str:
        return str(self.figure)

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.figure.savefig(content, format="png", dpi=130)
        return content.getvalue()


def _shade(shade: float) -> str:
    return f"rgba(217,83,30,{0.06 + 0.74 * shade:.2f})"


def _fields(value: Any) -> dict[str, Any]:
    """Return the columns of a row: the keys of a mapping, or a dataclass's fields in words."""
    if isinstance(value, Mapping):
        return dict(value)
    names = (field.name for field in dataclasses.fields(value))
    return {name.replace("_", " "): getattr(value, name) for name in names}


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value):
        return ", ".join(str(item.get("path", item)) for item in value)
    return str(value)
