"""Records: named values from a file or a data set, and the texts in them.

Every record comes with its place, so that an error can name it. `preparing/items.py` reads records.
"""

from typing import Any

from dimgpt.config import SourceConfig

Row = tuple[str, dict[str, Any]]
"""The place of a record, for error messages, and its values."""


def document_of(place: str, values: dict[str, Any], source: SourceConfig) -> str:
    """Return the text of a record: its column, or its columns in the template of the source.

    A column of a template may be empty or null, as titles are; the others stay, and blanks at the
    edges are removed.

    Raises:
        ValueError: A column is missing, or is no text.
    """
    if source.text_template is None:
        remedy = "set text_column (--text-column NAME)"
        return text_of(place, values, source.text_column, remedy=remedy)
    remedy = "correct text_template"
    texts = {
        column: ""
        if values.get(column, "") is None
        else text_of(place, values, column, remedy=remedy).strip()
        for column in source.text_columns
    }
    return source.text_template.format_map(texts).strip() if any(texts.values()) else ""


def text_of(
    place: str, values: dict[str, Any], column: str, *, remedy: str = "add it to the record"
) -> str:
    """Return a text of a record.

    Raises:
        ValueError: There is no such column, which ends with the remedy; or it holds no text.
    """
    text = values.get(column)
    if isinstance(text, str):
        return text
    if column not in values:
        raise ValueError(f"{place} has no {column!r}: it has {names_of(values)}; {remedy}")
    kind = "null" if text is None else type(text).__name__
    raise ValueError(f"{place}: {column!r} is {kind}: it must be text")


def names_of(values: dict[str, Any]) -> str:
    """Return the columns of a record in words."""
    return ", ".join(map(repr, values)) or "nothing"
