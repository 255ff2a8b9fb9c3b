"""The manifest of a folder of token files: what a reader must find there, and what it came from.

It is written last, so a folder without one is unfinished. It holds the format, the vocabulary's
sha256, the settings of the source, and for each token file its counts and the sha256 of its parts.
Checking the files against it is `token_file.py`'s.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimgpt.files import replace_file

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
PREPARE_AGAIN = "prepare it again with create_data.ipynb or `python -m dimgpt prepare`"


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenFileSummary:
    """What one token file holds."""

    num_documents: int
    num_tokens: int
    num_characters: int
    """Characters of the cleaned text."""
    num_bytes: int
    """UTF-8 bytes of the cleaned text."""
    largest_id: int
    ids_sha256: str
    index_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a folder of token files holds, and what it was made from."""

    vocabulary_sha256: str
    vocab_size: int
    source: dict[str, Any]
    """The settings that decide the content; two equal ones need no new preparation."""
    num_dropped: int
    """Documents that were too short, or empty once cleaned."""
    files: dict[str, TokenFileSummary]


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """Return the smallest integer type that holds every id of a vocabulary."""
    return np.dtype("<u2") if vocab_size <= 65_535 else np.dtype("<u4")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`; a reader sees the old one or the new."""
    values = {
        "format_version": FORMAT_VERSION,
        "dtype": token_dtype(manifest.vocab_size).name,
        **dataclasses.asdict(manifest),
    }
    content = json.dumps(values, indent=2, ensure_ascii=False)
    replace_file(folder / MANIFEST_NAME, content.encode())


def read_manifest(folder: Path) -> Manifest:
    """Read and check `manifest.json`.

    Raises:
        FileNotFoundError: There is none: nothing was prepared here, or it was cut off.
        ValueError: It is damaged, or of another format version.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: {folder.name} is not prepared; {PREPARE_AGAIN}"
        )
    try:
        values = json.loads(path.read_bytes())
        version, dtype = values.pop("format_version"), values.pop("dtype")
        files = {name: TokenFileSummary(**entry) for name, entry in values.pop("files").items()}
        manifest = Manifest(files=files, **values)
        expected_dtype = token_dtype(manifest.vocab_size).name
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); {PREPARE_AGAIN}") from error
    if version != FORMAT_VERSION or dtype != expected_dtype:
        raise ValueError(
            f"{path} says format {version} and {dtype}: this version reads format "
            f"{FORMAT_VERSION} and {expected_dtype}; {PREPARE_AGAIN}"
        )
    return manifest
