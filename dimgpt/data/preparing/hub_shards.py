"""Lists the files of a hub data set, and fetches one of them at a time.

`datasets` decides which files belong to a configuration and a split, by its own rules for cards,
globs and folders. It sees a folder of empty files with the repository's names, so nothing is asked
over the network except what `hub.py` asks. What the files hold is not read here.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from dimgpt.hub import PATIENCE, HubFile, Patience, download_file, list_files

# The card, or its substitute, says which files belong to what.
_CARDS = ("README.md", ".huggingface.yaml")
# Numbers that `datasets` would read from old repositories and that nothing here needs.
_IGNORED = ("dataset_infos.json",)
_LONGEST_REASON = 400


def list_shards(
    repo_id: str,
    *,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    endpoint: str | None = None,
    patience: Patience = PATIENCE,
) -> list[HubFile]:
    """List the files of a configuration's split, in the order in which `datasets` reads them.

    Args:
        repo_id: `owner/name`.
        config: Name of the configuration; `None` where there is one only, or a default.
        split: Name of the split.
        revision: Branch, tag or commit; `None` is the newest. The files name its commit.
        endpoint: Address of the hub; `None` is the usual one.
        patience: How long to try.

    Raises:
        FileNotFoundError, PermissionError, ConnectionError: As `dimgpt.hub.list_files`.
        ValueError: It has no such configuration or split, or is made by a script.
    """
    files = list_files(
        repo_id, kind="dataset", revision=revision, endpoint=endpoint, patience=patience
    )
    by_path = {file.path: file for file in files}
    if (script := f"{PurePosixPath(repo_id).name}.py") in by_path:
        raise ValueError(
            f"{repo_id} is made by a script, {script}, and no foreign code is run here; take a "
            "data set of plain files"
        )
    with tempfile.TemporaryDirectory(prefix="dimgpt-") as folder:
        mirror = Path(folder).resolve() / "files"
        _make_mirror(mirror, by_path, patience)
        paths = _resolve(mirror, repo_id, config=config, split=split)
        names = [path.removeprefix(f"{mirror.as_posix()}/") for path in paths]
    foreign = [name for name in names if name not in by_path]
    if foreign or not names:
        found = f"names {foreign[0]!r}, which is not in it" if foreign else "has no file"
        raise ValueError(f"{repo_id}, split {split!r}, {found}; take another data set or split")
    return [by_path[name] for name in dict.fromkeys(names)]


@contextlib.contextmanager
def fetched(shard: HubFile, folder: Path, *, patience: Patience = PATIENCE) -> Iterator[Path]:
    """Download a shard, yield its path, and delete it when the `with` block has ended well.

    If the block fails or the process is killed, what has arrived stays in the folder, and the next
    call with the same shard and folder continues with it.

    Raises:
        OSError: As `dimgpt.hub.download_file`.
    """
    # Shards of several folders may have the same name; the suffix says what is inside.
    target = folder / f"{shard.digest[:16]}-{PurePosixPath(shard.path).name}"
    yield download_file(shard, target, patience=patience)
    target.unlink(missing_ok=True)


def _make_mirror(mirror: Path, by_path: Mapping[str, HubFile], patience: Patience) -> None:
    """Make empty files with the names of the repository's files; only the cards are whole."""
    mirror.mkdir()
    for path, file in by_path.items():
        target = mirror / path
        if path in _CARDS:
            download_file(file, target, patience=patience)
        elif path not in _IGNORED:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()


def _resolve(mirror: Path, repo_id: str, *, config: str | None, split: str) -> list[str]:
    """Ask `datasets` which files of a folder belong to a configuration and a split."""
    from datasets import load_dataset_builder

    try:
        builder = load_dataset_builder(
            str(mirror), name=config, cache_dir=str(mirror.with_name("cache"))
        )
    except Exception as error:  # a card may hold anything, and surfaces as almost any exception
        reason = " ".join(str(error).replace(str(mirror), repo_id).split())[:_LONGEST_REASON]
        raise ValueError(
            f"{repo_id}, configuration {config!r}, cannot be used: {reason or type(error).__name__}"
        ) from error
    data_files = builder.config.data_files or {}
    if split not in data_files:
        splits = ", ".join(map(str, data_files)) or "none"
        raise ValueError(
            f"{repo_id}, configuration {config!r}, has no split {split!r}; it has: {splits}"
        )
    return [Path(path).as_posix() for path in data_files[split]]
