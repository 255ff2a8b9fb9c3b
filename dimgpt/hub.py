"""Lists the files of a repository on the Hugging Face hub, and downloads them.

The only file that imports `huggingface_hub`, for its session, addresses, token and errors. The
download is written here: it resumes after an interruption, and a file gets its name only when its
size and hash are right. In version 2.4, tested with `tests/hub_server.py`, `hf_hub_download`
deletes its partial file when it fails and checks no hash; `http_get` loses up to 10 MB at each
interruption, empties the file when it gets an HTML page, writes a range that was not requested, and
ignores `Patience`.
"""

import contextlib
import functools
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Literal, TypeVar

from dimgpt import partial_file
from dimgpt.partial_file import DamagedError

Kind = Literal["model", "dataset"]
T = TypeVar("T")

_LONGEST_WAIT = 300.0  # the hub limits requests per five minutes
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How often and how long to retry a request."""

    num_tries: int = 5
    """Tries of one request, the first included."""
    first_delay: float = 1.0
    """Seconds before the second try; each further delay is twice as long."""
    timeout: float = 20.0
    """Seconds without data after which a connection counts as stalled."""


PATIENCE = Patience()


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """A file of one commit of a repository."""

    repo_id: str
    """`owner/name`."""
    kind: Kind
    revision: str
    """Hash of the commit."""
    path: str
    """Path inside the repository, without parts that lead out of a folder."""
    size: int
    """Bytes."""
    digest: str
    """64 digits: SHA-256 of the content; 40 digits: SHA-1 of the content as a git blob."""
    endpoint: str | None = None
    """Address of the hub; `None` is the usual one."""

    def __post_init__(self) -> None:
        parts, characters = set(self.path.split("/")), set(self.path)
        leads_out = {"", ".", ".."} & parts or {"\\", "\0"} & characters
        if leads_out or PureWindowsPath(self.path).drive:
            raise ValueError(f"{self.repo_id}: a file {self.path!r} leads out of its folder")
        if not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", self.digest):
            raise ValueError(f"{self.repo_id}: {self.path} has an unknown hash, {self.digest!r}")


def list_files(
    repo_id: str,
    *,
    kind: Kind,
    revision: str | None = None,
    endpoint: str | None = None,
    patience: Patience = PATIENCE,
) -> list[HubFile]:
    """List all files of a repository, in the order of their paths.

    Args:
        repo_id: `owner/name`.
        kind: Models and data sets have separate repositories.
        revision: Branch, tag or commit; `None` is the newest of `main`. The files have its commit.
        endpoint: Address of the hub; `None` is the usual one.
        patience: How long to retry.

    Raises:
        FileNotFoundError: There is no such repository or revision, or it is private.
        PermissionError: The token is refused, or the terms are not accepted yet.
        ConnectionError: The hub cannot be reached.
        ValueError: The name is not `owner/name`, or a file's path would lead out of a folder.
    """
    from huggingface_hub import HfApi

    api, page = HfApi(endpoint=endpoint), _page_of(repo_id, kind, endpoint)
    options: dict[str, Any] = {"repo_type": kind, "timeout": patience.timeout}
    info = _retry(lambda: api.repo_info(repo_id, revision=revision, **options), page, patience)
    address = f"{api.endpoint}/api/{kind}s/{repo_id}/tree/{info.sha}?recursive=true"
    files = [
        HubFile(
            repo_id=repo_id,
            kind=kind,
            revision=str(info.sha),
            path=entry["path"],
            size=entry["size"],
            digest=(entry.get("lfs") or entry)["oid"],
            endpoint=endpoint,
        )
        for entry in _list_entries(address, page, patience)
        if entry["type"] == "file"
    ]
    return sorted(files, key=lambda file: file.path)


def download_file(
    file: HubFile,
    target: Path,
    *,
    progress: Callable[[int], None] | None = None,
    patience: Patience = PATIENCE,
) -> Path:
    """Download a file; it appears at `target` only when its size and hash are right.

    A partial file stays beside it after errors and crashes, and the next call requests only the
    rest. A correct target is kept; a wrong one is replaced at the end.

    Args:
        file: A result of `list_files`.
        target: The local file; its folders are created.
        progress: Called with the bytes received so far; they decrease if wrong bytes are dropped.
        patience: How long to retry.

    Raises:
        FileNotFoundError, PermissionError, ConnectionError: As `list_files`.
        BlockingIOError: Another process is downloading the same target.
        OSError: The disk is full, or the hub sent wrong data each time.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    report = progress or (lambda num_bytes: None)
    page = _page_of(file.repo_id, file.kind, file.endpoint)
    with _only_one(target):
        if not partial_file.is_whole(target, size=file.size, digest=file.digest):
            path = partial_file.partial_path(target, file.digest)
            present = path.stat().st_size if path.exists() else 0
            partial_file.require_space(target.parent, file.size - present, what=target.name)

            def complete() -> None:
                path.touch()
                _fetch_rest(file, path, report, patience)
                partial_file.finish(path, target, size=file.size, digest=file.digest)

            _retry(complete, page, patience)
        report(file.size)
    return target


def _page_of(repo_id: str, kind: Kind, endpoint: str | None) -> str:
    from huggingface_hub import constants

    folder = "datasets/" if kind == "dataset" else ""
    return f"{endpoint or constants.ENDPOINT}/{folder}{repo_id}"


@contextlib.contextmanager
def _only_one(target: Path) -> Iterator[None]:
    """Lock the partial file against other processes."""
    from huggingface_hub.utils import WeakFileLock

    path = target.with_name(f"{target.name}.lock")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(path, timeout=0.1))
        except TimeoutError:
            raise BlockingIOError(
                f"another process is fetching {target}; let it finish, or stop it and run again"
            ) from None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows cannot delete open files
                path.unlink()


def _list_entries(address: str | None, page: str, patience: Patience) -> Iterator[dict[str, Any]]:
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    def get(url: str) -> Any:
        answer = get_session().get(url, headers=build_hf_headers(), timeout=patience.timeout)
        hf_raise_for_status(answer)
        if not isinstance(answer.json(), list):
            raise DamagedError("something else instead of a list of files")
        return answer

    while address:
        answer = _retry(functools.partial(get, address), page, patience)
        yield from answer.json()
        address = answer.links.get("next", {}).get("url")


def _fetch_rest(
    file: HubFile, path: Path, report: Callable[[int], None], patience: Patience
) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    start = path.stat().st_size
    report(start)
    if start >= file.size:
        return
    where = {"repo_type": file.kind, "revision": file.revision, "endpoint": file.endpoint}
    url = hf_hub_url(file.repo_id, file.path, **where)
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with get_session().stream("GET", url, headers=headers, timeout=patience.timeout) as answer:
        hf_raise_for_status(answer)
        if answer.status_code != 206:  # the server ignores ranges and sends the file from byte 0
            start = 0
        _require_rest(answer.headers, file, start)
        os.truncate(path, start)
        for num_bytes in partial_file.append(path, answer.iter_bytes()):
            report(num_bytes)
            if num_bytes > file.size:
                return


def _require_rest(headers: Any, file: HubFile, start: int) -> None:
    """Refuse an HTML page, and bytes that were not requested, before they are written."""
    if headers.get("Content-Type", "").startswith("text/html") and ".htm" not in file.path:
        raise DamagedError("a page of HTML instead of data")
    place = headers.get("Content-Range", f"bytes {start}-")
    length = headers.get("Content-Length", f"{file.size - start}")
    is_other = int(length) != file.size - start and "Content-Encoding" not in headers
    if is_other or not place.startswith(f"bytes {start}-"):
        raise DamagedError(f"{length} bytes ({place}) of {file.size:,} from {start:,}")


def _retry(action: Callable[[], T], page: str, patience: Patience) -> T:
    """Call `action`, retrying temporary failures; turn permanent ones into errors with a remedy."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    reason, delay = "", patience.first_delay
    for num_tries in range(1, patience.num_tries + 1):
        wait = delay
        try:
            return action()
        except errors.OfflineModeIsEnabled:
            offline = f"{page} is not asked in offline mode; unset HF_HUB_OFFLINE"
            raise ConnectionError(offline) from None
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status not in (408, 429) and status < 500:
                raise _refusal(error, page) from error
            reason = f"HTTP {status}"
            asked = error.response.headers.get("Retry-After", "")
            wait = min(max(delay, float(asked if asked.isdigit() else 0)), _LONGEST_WAIT)
        except (httpx.RequestError, DamagedError, json.JSONDecodeError, UnicodeError) as error:
            reason = str(error) or type(error).__name__
        if num_tries < patience.num_tries:
            _logger.warning("%s: %s; again in %.0f s", page, reason, wait)
            time.sleep(wait)
            delay *= 2
    raise ConnectionError(
        f"{page}: {patience.num_tries} tries failed, the last one with: {reason}; check the "
        "network and run again: what has arrived is kept"
    )


def _refusal(error: Any, page: str) -> OSError:
    """Return the meaning of the hub's refusal as an error with a remedy."""
    from huggingface_hub import errors

    status, url = error.response.status_code, error.response.url
    match error:
        case errors.GatedRepoError():
            remedy = "accept its terms on that page, then run `hf auth login`"
            return PermissionError(f"{page} is gated: {remedy}")
        case errors.RevisionNotFoundError():
            return FileNotFoundError(f"{page} has no such revision; check its name on that page")
        case errors.RemoteEntryNotFoundError():
            return FileNotFoundError(f"{page} has no such file: {url}")
        case errors.RepositoryNotFoundError():
            remedy = "check the name; for a private one, run `hf auth login`"
            return FileNotFoundError(f"{page} does not exist or is private: {remedy}")
    if status in (401, 403):
        return PermissionError(f"{page} refuses the token (HTTP {status}): run `hf auth login`")
    return OSError(f"{page}: HTTP {status} for {url}; try again later")
