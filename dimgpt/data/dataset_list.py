"""Reads toyGPT's `datasets.json`: a list of hub data sets and the column of their text.

    [{"name": "wikimedia/wikipedia", "subset": ["20231101.en"], "column": "text"}, ...]

`subset` lists configurations of the data set; `null`, alone or in the list, stands for the only
one. Format of https://github.com/fritzprix/toyGPT. Nothing is downloaded here.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

_KEYS = ("name", "subset", "column")
_MAX_BYTES = 1_000_000  # longer files are read as texts


class ListedText(NamedTuple):
    """One source of a list, as fields of `SourceConfig`."""

    path: str
    hub_config: str | None
    text_column: str


def read_dataset_list(path: Path, *, text_column: str = "text") -> list[ListedText] | None:
    """Read a list of data sets, one source for each subset; `None` if the file is something else.

    A `.json` file is a list of data sets if its objects have a `column` or a `subset`, and none has
    the column `text_column`.

    Raises:
        ValueError: An entry has an unknown, missing or empty field.
    """
    if path.suffix != ".json" or not path.is_file() or path.stat().st_size > _MAX_BYTES:
        return None
    try:
        entries = json.loads(path.read_bytes())
    except ValueError:
        return None  # the reader of texts reports the error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    keys = {key for entry in entries for key in entry}
    if keys.isdisjoint({"column", "subset"}) or text_column in keys:
        return None
    return [text for number, entry in enumerate(entries, 1) for text in _read(path, number, entry)]


def _read(path: Path, number: int, entry: dict[str, Any]) -> list[ListedText]:
    place = f"{path}, entry {number}"
    if unknown := [key for key in entry if key not in _KEYS]:
        raise ValueError(
            f"{place} has {', '.join(map(repr, unknown))}: an entry has {', '.join(_KEYS)} only; "
            "remove it"
        )
    for key in ("name", "column"):
        if not isinstance(entry.get(key), str) or not entry[key]:
            found = f"{entry[key]!r:.60}" if key in entry else "missing"
            raise ValueError(f"{place}: {key} is {found}; write a text")
    subsets = entry.get("subset")
    if subsets is None:
        subsets = [None]
    elif not (isinstance(subsets, list) and subsets and all(map(_is_subset, subsets))):
        raise ValueError(
            f"{place}: subset is {subsets!r:.60}; write a list of configurations, or null"
        )
    address = f"hf://datasets/{entry['name']}"
    return [ListedText(address, subset, entry["column"]) for subset in subsets]


def _is_subset(value: Any) -> bool:
    return value is None or (isinstance(value, str) and bool(value))
