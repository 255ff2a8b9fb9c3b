"""Downloads a model from the Hugging Face hub into a folder.

All files arrive in `<folder>.download`, which is renamed when they are complete. A finished folder
is never overwritten; its `download.json` records the origin and the hash of each file.
"""

import contextlib
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

from dimgpt.files import replace_file, sha256_of, sync_folder
from dimgpt.hub import PATIENCE, HubFile, Patience, download_file, list_files
from dimgpt.partial_file import is_whole, require_space

REPOSITORIES = {
    "lillm-39m": "jonwondo/lilLM_40M_param_10B_tok",
    "lillm-300m": "jonwondo/lilLM_300M_param_9_5B_tok",
}
"""Where the weights of the original systems are."""

_BY_HAND = "dimensiongpt-0.2b"
_DRIVE_FOLDER = "https://drive.google.com/drive/folders/1XxKdsR33rt6VTFAF8qwyE3uxulK7gK6m"
_RECORD_NAME = "download.json"
# Weights, tokenizer, card.
_WANTED_SUFFIXES = tuple(".pt .pth .bin .safetensors .json .txt .md .model .ckpt".split())
_logger = logging.getLogger(__name__)


def download_model(
    name: str,
    models_root: Path,
    *,
    revision: str | None = None,
    endpoint: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    patience: Patience = PATIENCE,
) -> Path:
    """Download a model into `models_root/<name>/`, or resume that; return the folder.

    Weights, tokenizer, config and card are downloaded; the log names the other files. A complete
    model is kept without a request to the hub; of an incomplete one only the missing files are
    downloaded.

    Args:
        name: A key of `REPOSITORIES`, or `owner/name` on the hub, whose folder is `name`.
        models_root: Gets the folder.
        revision: Branch, tag or commit; `None` is the newest, or the one already there.
        endpoint: Address of the hub; `None` is the usual one.
        progress: Called with the bytes received so far and the bytes of all files.
        patience: How long to retry.

    Raises:
        ValueError: The name is unknown, or the repository has no file of a model.
        FileExistsError: There is another folder of that name, or one with other files.
        OSError: As `dimgpt.hub.download_file`.
    """
    repo_id = _repo_id_of(name)
    folder = models_root / name.rpartition("/")[2]
    if folder.exists() or folder.is_symlink():
        recorded = _read_record(folder, repo_id, revision, endpoint)
        _fetch(_lost_files(recorded, folder), folder, progress, patience)
        return folder
    found = list_files(
        repo_id, kind="model", revision=revision, endpoint=endpoint, patience=patience
    )
    files = _choose(found, repo_id)
    arriving = folder.with_name(f"{folder.name}.download")
    _fetch(files, arriving, progress, patience)
    _finish(arriving, folder, files)
    return folder


def _repo_id_of(name: str) -> str:
    if name == _BY_HAND:
        raise ValueError(
            f"the weights of {name} cannot be downloaded by a program: open {_DRIVE_FOLDER} in a "
            "browser, put the .pt into models/ and vocab.txt into data/"
        )
    repo_id = REPOSITORIES.get(name, name)
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repo_id, re.ASCII):
        known = ", ".join([*REPOSITORIES, _BY_HAND])
        raise ValueError(f"name is {name!r}: it must be {known}, or owner/name on the hub")
    return repo_id


def _choose(files: list[HubFile], repo_id: str) -> list[HubFile]:
    """Return the files that belong to a model, and log the others."""
    wanted = [
        file for file in files if file.path.endswith(_WANTED_SUFFIXES) and file.path != _RECORD_NAME
    ]
    if left := [file.path for file in files if file not in wanted]:
        _logger.warning(
            "%s: these files are no part of a model and are not downloaded: %s",
            repo_id,
            ", ".join(left),
        )
    if not wanted:
        raise ValueError(f"{repo_id} contains no model files; check the name on its page")
    return wanted


def _fetch(
    files: list[HubFile],
    folder: Path,
    progress: Callable[[int, int], None] | None,
    patience: Patience,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(file.size for file in files)
    present = (folder / file.path for file in files)
    here = sum(path.stat().st_size for path in present if path.is_file())
    require_space(folder, total - here, what=f"the model in {folder}")
    arrived = 0  # bytes of the files before this one

    def report(num_bytes: int) -> None:
        if progress is not None:
            progress(arrived + num_bytes, total)

    for file in files:
        download_file(file, folder / file.path, progress=report, patience=patience)
        arrived += file.size


def _finish(arriving: Path, folder: Path, files: list[HubFile]) -> None:
    """Record the origin of the files, each with its SHA-256, and rename the folder."""
    wanted = {arriving / file.path for file in files}
    for path in sorted(arriving.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
        elif path not in wanted:  # of another revision, whose download was interrupted
            path.unlink()
    entries = {}
    for file in files:  # the hub knows the SHA-256 of large files only
        digest = file.digest if len(file.digest) == 64 else sha256_of(arriving / file.path)
        entries[file.path] = {"size": file.size, "sha256": digest}
    record = {"repo_id": files[0].repo_id, "revision": files[0].revision, "files": entries}
    content = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    replace_file(arriving / _RECORD_NAME, content.encode())
    arriving.rename(folder)
    sync_folder(folder.parent)


def _read_record(
    folder: Path, repo_id: str, revision: str | None, endpoint: str | None
) -> list[HubFile]:
    remedy = "move the folder away to download it"
    path = folder / _RECORD_NAME
    if not path.is_file():
        raise FileExistsError(f"{folder} already exists and was not downloaded; {remedy}")
    try:
        record = json.loads(path.read_bytes())
        where = {"repo_id": record["repo_id"], "revision": record["revision"], "endpoint": endpoint}
        files = [
            HubFile(kind="model", path=name, size=entry["size"], digest=entry["sha256"], **where)
            for name, entry in record["files"].items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileExistsError(f"{path} is damaged ({error}); {remedy} again") from error
    if record["repo_id"] != repo_id or revision not in (None, record["revision"]):
        raise FileExistsError(
            f"{folder} holds {record['repo_id']} at {record['revision']}; {remedy} from {repo_id}"
            + (f" at {revision}" if revision else "")
        )
    return files


def _lost_files(files: list[HubFile], folder: Path) -> list[HubFile]:
    """Return the files that a finished folder lacks; refuse a folder with changed ones."""
    lost, changed = [], []
    for file in files:
        path = folder / file.path
        if not path.exists():
            lost.append(file)
        elif not is_whole(path, size=file.size, digest=file.digest):
            changed.append(file.path)
    if changed:
        raise FileExistsError(
            f"{folder} has files that were changed after the download: {', '.join(changed)}; "
            "remove them and run again to get them back"
        )
    return lost
