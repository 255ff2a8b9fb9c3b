"""Lists the files of a source: of a local path, of a hub data set, or the demo's texts.

Files are listed in a fixed order with their sizes, before anything is read. `hub_shards.py` asks
the hub, `blocks.py` reads the files.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from dimgpt.config import ConversationSourceConfig, PreferenceSourceConfig, SourceConfig
from dimgpt.data.preparing.hub_shards import list_shards, match_files
from dimgpt.data.preparing.tables import json_form
from dimgpt.hub import HubFile

Source = SourceConfig | ConversationSourceConfig
TABLE_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
"""Kinds of files that hold records."""
TEXT_SUFFIXES = (".txt", *TABLE_SUFFIXES, ".md", ".text")
"""Kinds of files that hold documents: one text each, or records."""
DEMO_PREFIX, HUB_PREFIX = "demo://", "hf://datasets/"

# Estimated bytes of text per byte of a file.
_EXPANSION = {".gz": 2.8, ".zst": 3.0, ".parquet": 1.8}
_OTHER, _CLOSED = "files of other kinds", "folders that cannot be opened"
_README = "readme.md"
_MAX_NAMES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """One file of a source."""

    name: str
    """Path or address; its suffix gives the kind of the file."""
    num_bytes: int
    """Size of the file on the disk or the hub; 0 for the demo's."""
    remote: HubFile | None = None
    """The file on the hub, if it is there."""

    @property
    def text_bytes(self) -> int:
        """Estimated bytes of text in the file."""
        return int(self.num_bytes * _EXPANSION.get(Path(self.name).suffix.lower(), 1.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The files of a source, in the order in which they are read."""

    files: tuple[SourceFile, ...]
    text_bytes: int
    """Estimated bytes of text in them: the source's `expected_bytes` if set, else by file size."""
    revision: str | None
    """Commit of a hub data set."""
    notes: tuple[str, ...]
    """What was left out and why, one sentence each."""

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(file.num_bytes for file in self.files)


def list_source(source: Source) -> Listing:
    """List the files of a source; for conversations, only files of records.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: The path is no known address, of no known kind, or a folder without such files.
        OSError: As `dimgpt.hub.list_files`.
    """
    path, revision = source.path, None
    notes: tuple[str, ...] = ()
    if is_demo(path):
        are_pairs = isinstance(source, PreferenceSourceConfig)
        if path.startswith(f"{DEMO_PREFIX}preferences/") != are_pairs:
            raise ValueError(
                f"path of {source.name!r} is {path!r}: of the demo's texts, preferences take "
                f"{DEMO_PREFIX}preferences/N, and other sources take the others; correct it"
            )
        files = [SourceFile(name=path, num_bytes=0)]
    elif is_local(path):
        is_documents = isinstance(source, SourceConfig)
        paths, notes = list_files(path, TEXT_SUFFIXES if is_documents else TABLE_SUFFIXES)
        files = [SourceFile(name=str(file), num_bytes=file.stat().st_size) for file in paths]
    elif path.startswith(HUB_PREFIX):
        shards = _list_hub_files(source)
        revision = shards[0].revision
        files = [
            SourceFile(name=f"{path}/{shard.path}", num_bytes=shard.size, remote=shard)
            for shard in shards
        ]
    else:
        raise ValueError(
            f"path is {path!r}: it must be a local path, {HUB_PREFIX}owner/name, or the demo's "
            f"texts, such as {DEMO_PREFIX}stories/20000"
        )
    taken, text_bytes = _take_first(files, source)
    return Listing(files=taken, text_bytes=text_bytes, revision=revision, notes=notes)


def _list_hub_files(source: Source) -> list[HubFile]:
    repo_id = source.path.removeprefix(HUB_PREFIX)
    if isinstance(source, SourceConfig) and source.files is not None:
        files = match_files(repo_id, source.files, revision=source.revision)
        names = {file: Path(file.path).name.lower() for file in files}
        texts = [f for f in files if kind_of(names[f]) in TEXT_SUFFIXES and names[f] != _README]
        if texts:
            return texts
        raise ValueError(
            f"{repo_id}: the files that match {source.files!r} are of other kinds, such as "
            f"{files[0].path}; usable are {', '.join(TEXT_SUFFIXES)} files"
        )
    return list_shards(
        repo_id, config=source.hub_config, split=source.hub_split, revision=source.revision
    )


def _take_first(files: list[SourceFile], source: Source) -> tuple[tuple[SourceFile, ...], int]:
    """Return the first files that hold `max_bytes` of text, and the estimated bytes of text."""
    text_bytes = sum(file.text_bytes for file in files)
    if not isinstance(source, SourceConfig):
        return tuple(files), text_bytes
    expected, wanted = source.expected_bytes, source.max_bytes or float("inf")
    scale = (expected or text_bytes) / max(text_bytes, 1)
    before = accumulate((scale * file.text_bytes for file in files), initial=0.0)
    taken = tuple(file for file, size in zip(files, before, strict=False) if size < wanted)
    return taken, int(min(expected, wanted)) if expected else sum(file.text_bytes for file in taken)


def list_files(path: str, suffixes: tuple[str, ...]) -> tuple[list[Path], tuple[str, ...]]:
    """List the files of a local path, in order.

    In a folder, hidden files and folders, a README.md, and `.json` files of settings are left out;
    give the path of such a file to read it. Linked folders are followed, but no folder is read
    twice. The case of suffixes does not matter.

    Returns:
        The files, and notes on what was left out.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: The path has no file with one of the suffixes.
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"{path} does not exist (seen from {Path.cwd()}); check the path")
    if root.is_file() and kind_of(path) in suffixes:
        return [root], ()
    files: list[Path] = []
    left_out: dict[str, list[str]] = defaultdict(list)
    for file in [root] if root.is_file() else _walk(root, left_out[_CLOSED]):
        if reason := _reason_to_leave(file, suffixes):
            left_out[reason].append(kind_of(file.name) if reason == _OTHER else file.name)
        else:
            files.append(file)
    notes = tuple(_note(*reason) for reason in sorted(left_out.items()) if reason[1])
    if not files:
        takes = f"usable are {', '.join(suffixes)} files, also as .gz or .zst"
        raise ValueError("; ".join([f"{path} has no file to read: {takes}", *notes]))
    return sorted(files), notes


def _walk(root: Path, closed: list[str]) -> Iterator[Path]:
    """Yield the files below a folder, and hidden folders without their content.

    Real folders come before linked ones, so that a folder reached in both ways keeps its own name.
    Names of folders that cannot be opened are added to `closed`.
    """
    waiting, seen = [root], set()
    while waiting:
        start = waiting.pop(0)
        for place, folders, names in os.walk(start, onerror=lambda e: closed.append(e.filename)):
            folder, real = Path(place), os.path.realpath(place)
            is_new = real not in seen
            seen.add(real)
            yield from (folder / name for name in names if is_new)
            yield from (folder / name for name in folders if is_new and name.startswith("."))
            # `os.walk` enters the folders that stay in its list, except linked ones.
            folders[:] = sorted(name for name in folders if is_new and not name.startswith("."))
            waiting += [folder / name for name in folders if (folder / name).is_symlink()]


def _reason_to_leave(file: Path, suffixes: tuple[str, ...]) -> str:
    """Return why a file of a folder is left out; an empty text if it is not."""
    if file.name.startswith("."):
        return "hidden files and folders"
    if not file.is_file():
        return "broken links"
    if file.name.lower() == _README:
        return "files about their folders"
    if kind_of(file.name) not in suffixes:
        return _OTHER
    try:
        is_other = kind_of(file.name) == ".json" and json_form(file) == "other"
    except EOFError:
        is_other = False  # damaged: reading it raises the error
    return ".json files without a list of records" if is_other else ""


def _note(reason: str, names: list[str]) -> str:
    shown = sorted({name or "no suffix" for name in names})
    more = ", …" if len(shown) > _MAX_NAMES else ""
    return f"{reason} left out ({len(names):,}): {', '.join(shown[:_MAX_NAMES])}{more}"


def kind_of(name: str) -> str:
    """Return the suffix that decides how a file is read, in lower case, without `.gz` and `.zst`.

    >>> kind_of("A.TXT"), kind_of("a.jsonl.gz"), kind_of("a.parquet.gz")
    ('.txt', '.jsonl', '.gz')
    """
    name = name.lower()
    kind = Path(re.sub(r"\.(gz|zst)$", "", name)).suffix
    return Path(name).suffix if kind == ".parquet" else kind


def is_demo(path: str) -> bool:
    """Return whether a path stands for the demo's generated texts."""
    return path.startswith(DEMO_PREFIX)


def is_local(path: str) -> bool:
    """Return whether a source's path is a file or folder of this machine."""
    return "://" not in path
