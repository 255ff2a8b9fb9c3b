"""What a source consists of: the files of a local path, of a hub data set, or the demo's.

Files are listed in a fixed order with their sizes, before anything is read. Reading them is
`blocks.py`'s.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.data.preparing.hub_shards import fetched, list_shards
from dimgpt.hub import HubFile

_COMPRESSIONS = ("", ".gz", ".zst")
TABLE_SUFFIXES = (
    *(kind + compression for kind in (".jsonl", ".csv") for compression in _COMPRESSIONS),
    ".parquet",
)
TEXT_SUFFIXES = (*(".txt" + compression for compression in _COMPRESSIONS), *TABLE_SUFFIXES)
# Bytes of text in a byte of a file, about.
_EXPANSION = {".gz": 2.8, ".zst": 3.0, ".parquet": 1.8}
DEMO_PREFIX, HUB_PREFIX = "demo://", "hf://datasets/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """Where records are."""

    path: str
    """A local file or folder, `hf://datasets/owner/name`, or `demo://stories/20000`."""
    hub_config: str | None = None
    hub_split: str = "train"
    revision: str | None = None
    max_bytes: int | None = None
    """Text to take, about; whole files, the first at least."""
    expected_bytes: int | None = None
    """Text of all files."""

    @classmethod
    def of(cls, source: SourceConfig | ConversationSourceConfig) -> "Location":
        """Return where a source's documents or conversations are."""
        return cls(
            max_bytes=source.max_bytes if isinstance(source, SourceConfig) else None,
            expected_bytes=source.expected_bytes if isinstance(source, SourceConfig) else None,
            path=source.path,
            hub_config=source.hub_config,
            hub_split=source.hub_split,
            revision=source.revision,
        )

    @classmethod
    def of_system_prompts(cls, source: ConversationSourceConfig) -> "Location | None":
        """Return where a group's system prompts are, if it has some."""
        if source.system_prompts_path is None:
            return None
        return cls(
            path=source.system_prompts_path,
            hub_config=source.system_prompts_hub_config,
            hub_split=source.hub_split,
            revision=source.revision,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """One file of a source; its name ends in what it is."""

    name: str
    """Path or address, for people."""
    num_bytes: int
    """Size of the file, compressed as it is; 0 for the demo's."""
    remote: HubFile | None = None
    """The file of the hub that it is."""

    @property
    def text_bytes(self) -> int:
        """About how many bytes of text it holds."""
        return int(self.num_bytes * _EXPANSION.get(Path(self.name).suffix, 1.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The files of a source, in the order in which they are read."""

    files: tuple[SourceFile, ...]
    revision: str | None = None
    """Commit of a hub data set."""

    @property
    def num_bytes(self) -> int:
        """Size of all files."""
        return sum(file.num_bytes for file in self.files)

    @property
    def text_bytes(self) -> int:
        """About how many bytes of text they hold, compressed as they are."""
        return sum(file.text_bytes for file in self.files)


def list_source(location: Location, *, suffixes: tuple[str, ...]) -> Listing:
    """List the files of a source.

    Args:
        location: Relative paths start at the working directory.
        suffixes: Kinds of local files to take, `TEXT_SUFFIXES` or `TABLE_SUFFIXES`.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: It is no known address, of no known kind, or a folder without such files.
    """
    path = location.path
    if is_demo(path):
        return Listing(files=(SourceFile(name=path, num_bytes=0),))
    if is_local(path):
        files = list_files(path, suffixes)
        listing = Listing(
            files=tuple(SourceFile(name=str(file), num_bytes=file.stat().st_size) for file in files)
        )
        return _take_first(listing, location)
    if path.startswith(HUB_PREFIX):
        return _take_first(_list_hub(location), location)
    raise ValueError(
        f"path is {path!r}: it must be a local path, {HUB_PREFIX}owner/name, "
        f"{DEMO_PREFIX}stories/N or {DEMO_PREFIX}conversations/N"
    )


def list_files(path: str, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files that a local path stands for, in order.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: It is of no known kind, or a folder without such files.
    """
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"{path} does not exist (seen from {Path.cwd()}); check the path")
    if root.is_file() and root.name.endswith(suffixes):
        return [root]
    files = sorted(
        found for found in root.rglob("*") if found.is_file() and found.name.endswith(suffixes)
    )
    if not files:
        kinds = ", ".join(suffix for suffix in suffixes if suffix.count(".") == 1)
        raise ValueError(f"{path} has nothing to read: it takes {kinds} files, also as .gz or .zst")
    return files


def is_demo(path: str) -> bool:
    """Tell whether a path stands for documents that the demo makes up."""
    return path.startswith(DEMO_PREFIX)


def is_local(path: str) -> bool:
    """Tell whether a source's path is one of this machine's files or folders."""
    return "://" not in path


@contextlib.contextmanager
def at_hand(file: SourceFile, folder: Path) -> Iterator[Path]:
    """Yield where a file can be read; one of the hub is fetched, and removed in the end.

    Args:
        file: Any but the demo's.
        folder: Holds the file that is fetched, and no other.
    """
    if file.remote is None:
        yield Path(file.name)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if not path.name.startswith(file.remote.digest[:16]):
            path.unlink()
    with fetched(file.remote, folder) as path:
        yield path


def _list_hub(location: Location) -> Listing:
    listing = list_shards(
        location.path.removeprefix(HUB_PREFIX),
        config=location.hub_config,
        split=location.hub_split,
        revision=location.revision,
    )
    files = tuple(
        SourceFile(name=f"{location.path}/{shard.path}", num_bytes=shard.size, remote=shard)
        for shard in listing.shards
    )
    return Listing(files=files, revision=listing.revision)


def _take_first(listing: Listing, location: Location) -> Listing:
    """Leave out the files that follow those with as much text as is wanted."""
    if location.max_bytes is None:
        return listing
    scale = (location.expected_bytes or listing.text_bytes) / max(listing.text_bytes, 1)
    files: list[SourceFile] = []
    room = float(location.max_bytes)
    for file in listing.files:
        if room <= 0:
            break
        files.append(file)
        room -= scale * file.text_bytes
    return dataclasses.replace(listing, files=tuple(files))


def group_files(files: Sequence[SourceFile], *, num_bytes: int) -> list[tuple[SourceFile, ...]]:
    """Gather neighbouring files into shards: small ones together, up to about `num_bytes`."""
    shards: list[list[SourceFile]] = []
    room = 0
    for file in files:
        if not shards or file.num_bytes > room:
            shards.append([])
            room = num_bytes
        shards[-1].append(file)
        room -= file.num_bytes
    return [tuple(shard) for shard in shards]
