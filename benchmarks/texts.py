"""The French texts for benchmarks of `text/` and `data/`."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from dimgpt.demo.corpus import stories

_ROOT = Path(__file__).parents[1]
FRENCH_FOLDERS = (_ROOT / "data" / "french", _ROOT.parent / "shared" / "data" / "french")
_FILES = ("books.jsonl.gz", "wiki_news.jsonl.gz", "institutions.jsonl.gz")


def load_documents() -> tuple[str, list[str]]:
    """Return a name and shuffled documents: real ones if they exist, else the demo's stories."""
    for folder in FRENCH_FOLDERS:
        paths = [folder / name for name in _FILES]
        if all(path.is_file() for path in paths):
            name = "books, encyclopaedia, news and institutions"
            documents = [text for path in paths for text in _read(path)]
            break
    else:
        name, documents = "stories of the demo", list(stories(20_000, seed=0))
    Random(0).shuffle(documents)
    return name, documents


def _read(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]
