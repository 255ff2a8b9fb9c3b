"""The manifest of a folder of token files: what is in them, and what they were made from.

It is written last, so a folder without one is unfinished. It holds the format, the vocabulary's
sha256, the settings of the source, and for each token file its counts, its parts and their sha256.
`token_file.py` checks the files against it.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dimgpt.files import replace_file

FORMAT_VERSION = 2
MANIFEST_NAME = "manifest.json"
SYSTEM_PROMPTS = "system_prompts"
"""Name of the token file of a group's system prompts."""
PREPARE_AGAIN = "prepare it again with create_data.ipynb or `python -m dimgpt prepare`"


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenPart:
    """One of the files that hold the documents of a token file."""

    name: str
    """Path of the file, relative to the manifest's folder."""
    num_tokens: int
    sha256: str


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
    parts: tuple[TokenPart, ...]
    """In their order."""
    index_sha256: str
    """One index for all parts."""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TokenFileSummary":
        """Build a summary from what `dataclasses.asdict` made of one."""
        parts = tuple(TokenPart(**part) for part in values["parts"])
        return cls(**{**values, "parts": parts})


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What a folder of token files holds, and what it was made from."""

    vocabulary_sha256: str
    vocab_size: int
    source: dict[str, Any]
    """The settings that the content depends on: if they are unchanged, nothing is prepared anew."""
    dropped: dict[str, int]
    """Documents that were left out, by reason."""
    files: dict[str, TokenFileSummary]

    @property
    def num_dropped(self) -> int:
        """All documents that were left out."""
        return sum(self.dropped.values())


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
        if version == 1:
            _update_first_format(values)
        files = values.pop("files").items()
        manifest = Manifest(
            files={name: TokenFileSummary.from_dict(entry) for name, entry in files}, **values
        )
        expected_dtype = token_dtype(manifest.vocab_size).name
        _check_names(manifest)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); {PREPARE_AGAIN}") from error
    if version not in (1, FORMAT_VERSION) or dtype != expected_dtype:
        raise ValueError(
            f"{path} says format {version} and {dtype}: this version reads format "
            f"{FORMAT_VERSION} and {expected_dtype}; {PREPARE_AGAIN}"
        )
    return manifest


def _update_first_format(values: dict[str, Any]) -> None:
    """Change the values of format 1, in which a token file was one part, to today's."""
    for name, entry in values["files"].items():
        sha256 = entry.pop("ids_sha256")
        part = {"name": f"{name}.bin", "num_tokens": entry["num_tokens"], "sha256": sha256}
        entry["parts"] = [part]
    values["dropped"] = {"too_short": values.pop("num_dropped")}


def _check_names(manifest: Manifest) -> None:
    """Refuse parts that lie outside the folder."""
    for summary in manifest.files.values():
        for part in summary.parts:
            path = Path(part.name)
            if path.is_absolute() or ".." in path.parts or "\\" in part.name:
                raise ValueError(f"part {part.name!r} lies outside the folder")
