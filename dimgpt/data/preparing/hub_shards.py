"""Lists the files of a hub data set: those of a configuration's split, or those of a pattern."""

import tempfile
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from dimgpt.hub import PATIENCE, HubFile, Patience, download_file
from dimgpt.hub import list_files as list_hub_files

# The files in which a hub data set assigns its files to configurations and splits.
_CARDS = ("README.md", ".huggingface.yaml")
# Statistics that `datasets` would read from old repositories; not needed here.
_IGNORED = ("dataset_infos.json",)
_LONGEST_REASON = 400
_MAX_NAMES = 5


def match_files(
    repo_id: str,
    pattern: str,
    *,
    revision: str | None = None,
    endpoint: str | None = None,
    patience: Patience = PATIENCE,
) -> list[HubFile]:
    """List the files of a hub data set whose paths match a pattern, in the order of their paths.

    No card is read. So data sets with a wrong card, or with a loading script beside plain files,
    can be used. The other arguments and errors are those of `list_shards`.

    Raises:
        ValueError: No file matches.
    """
    files = list_hub_files(
        repo_id, kind="dataset", revision=revision, endpoint=endpoint, patience=patience
    )
    found = [file for file in files if fnmatchcase(file.path, pattern)]
    if not found:
        names = ", ".join(file.path for file in files[:_MAX_NAMES]) or "no files"
        raise ValueError(
            f"{repo_id} has no file that matches {pattern!r}: it has {names}"
            f"{', …' if len(files) > _MAX_NAMES else ''}; correct files"
        )
    return sorted(found, key=lambda file: file.path)


def list_shards(
    repo_id: str,
    *,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    endpoint: str | None = None,
    patience: Patience = PATIENCE,
) -> list[HubFile]:
    """List the files of a hub data set's split, in the order in which `datasets` reads them.

    `datasets` chooses the files by its own rules for cards, globs and folders. It gets a folder of
    empty files with the repository's names, so that it needs no request to the hub.

    Args:
        repo_id: `owner/name`.
        config: Name of the configuration; `None` if there is only one, or a default.
        split: Name of the split.
        revision: Branch, tag or commit; `None` is the newest. The files have its commit.
        endpoint: Address of the hub; `None` is the usual one.
        patience: How long to retry.

    Raises:
        FileNotFoundError, PermissionError, ConnectionError: As `dimgpt.hub.list_files`.
        ValueError: It has no such configuration or split, or is made by a script.
    """
    files = list_hub_files(
        repo_id, kind="dataset", revision=revision, endpoint=endpoint, patience=patience
    )
    by_path = {file.path: file for file in files}
    if (script := f"{PurePosixPath(repo_id).name}.py") in by_path:
        raise ValueError(
            f"{repo_id} is loaded by a script, {script}, which dimgpt does not run; use a data set "
            "of plain files"
        )
    with tempfile.TemporaryDirectory(prefix="dimgpt-") as folder:
        mirror = Path(folder).resolve() / "files"
        _make_mirror(mirror, by_path, patience)
        paths = _resolve(mirror, repo_id, config=config, split=split)
        names = [path.removeprefix(f"{mirror.as_posix()}/") for path in paths]
    foreign = [name for name in names if name not in by_path]
    if foreign or not names:
        found = f"names a missing file {foreign[0]!r}" if foreign else "has no file"
        raise ValueError(f"{repo_id}, split {split!r}, {found}; use another data set or split")
    return [by_path[name] for name in dict.fromkeys(names)]


def _make_mirror(mirror: Path, by_path: Mapping[str, HubFile], patience: Patience) -> None:
    """Make empty files with the names of the repository's files; only the cards have content."""
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
    except Exception as error:  # a malformed card can raise almost any exception
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
