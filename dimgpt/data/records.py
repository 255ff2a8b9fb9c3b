"""Records: named values from a file or a data set, and the text that they hold.

Every record comes with the place where it stands, so that a refusal can name it. Reading records is
`sources.py`'s.
"""

from typing import Any

from dimgpt.config import SourceConfig

Row = tuple[str, dict[str, Any]]
"""Where a record stands, for error messages, and its values."""


def document_of(place: str, values: dict[str, Any], source: SourceConfig) -> str:
    """Return the text of a record: its column, or its columns in the template of the source.

    A column of a template may be empty or null, as titles are; those around it stay, and blank
    edges are cut off.

    Raises:
        ValueError: A column is missing, is no text, or all are empty in a template.
    """
    if source.text_template is None:
        return text_of(place, values, source.text_column)
    texts = {
        column: "" if values.get(column, "") is None else text_of(place, values, column).strip()
        for column in source.text_columns
    }
    return source.text_template.format_map(texts).strip() if any(texts.values()) else ""


def text_of(place: str, values: dict[str, Any], column: str) -> str:
    """Return a text of a record.

    Raises:
        ValueError: There is no such column, or it holds no text.
    """
    text = values.get(column)
    if isinstance(text, str):
        return text
    if column in values:
        raise ValueError(f"{place}: {column!r} is {type(text).__name__}: it must be text")
    raise ValueError(f"{place} has no {column!r}: it has {names_of(values)}; set the column's name")


def names_of(values: dict[str, Any]) -> str:
    """Return the columns of a record in words."""
    return ", ".join(map(repr, values)) or "nothing"
