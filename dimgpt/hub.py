"""Files of the Hugging Face hub: which there are, and how they come here whole.

The only file that imports `huggingface_hub`, for its session, addresses, token and errors. The
download is ours and promises more than the library's: what arrived before a cut or a kill is
continued, and a file gets its name only when size and hash are the hub's. It chooses no files.
"""

import contextlib
import functools
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Literal, TypeVar

from dimgpt.partial_file import DamagedError, PartialFile, is_whole

Kind = Literal["model", "dataset"]
T = TypeVar("T")

_LONGEST_WAIT = 300.0  # the hub counts requests in windows of five minutes
_NO_JSON = json.JSONDecodeError, UnicodeDecodeError
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long to try before giving up."""

    num_tries: int = 5
    """Requests for one thing, the first included."""
    first_delay: float = 1.0
    """Seconds before the second try; each further delay is twice as long."""
    timeout: float = 20.0
    """Seconds without a byte after which a connection counts as stalled."""


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
    """Inside the repository; it stays inside of any folder that it is put below."""
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
        kind: Models and data sets have repositories of their own.
        revision: Branch, tag or commit; `None` is the newest of `main`. The files name its commit.
        endpoint: Address of the hub; `None` is the usual one.
        patience: How long to try.

    Raises:
        FileNotFoundError: There is no such repository or revision, or it is private.
        PermissionError: The token is refused, or the terms are not accepted yet.
        ConnectionError: The hub cannot be reached.
        ValueError: The name is none, or a file's path would lead out of a folder.
    """
    from huggingface_hub import HfApi

    api, place = HfApi(endpoint=endpoint), _Repository(repo_id, kind, endpoint)
    repo_info = functools.partial(api.repo_info, repo_type=kind, timeout=patience.timeout)
    info = _persist(lambda: repo_info(repo_id, revision=revision), place, patience)
    files: list[HubFile] = []
    address: str | None = f"{api.endpoint}/api/{kind}s/{repo_id}/tree/{info.sha}?recursive=true"
    while address:
        get_page = functools.partial(_get_page, address, patience)
        entries, address = _persist(get_page, place, patience)
        files += [_to_file(e, place, str(info.sha)) for e in entries if e["type"] == "file"]
    return sorted(files, key=lambda file: file.path)


def download_file(
    file: HubFile,
    target: Path,
    *,
    progress: Callable[[int], None] | None = None,
    patience: Patience = PATIENCE,
) -> Path:
    """Fetch a file; it appears at `target` when its size and hash are the hub's, not before.

    What has arrived stays beside it, across errors and killed processes, and the next call asks for
    the rest only. A target that is right already is kept; another is replaced at the end.

    Args:
        file: What `list_files` found.
        target: Where to put it; folders are made.
        progress: Called with the bytes that are here; fewer than before where they were wrong.
        patience: How long to try.

    Raises:
        FileNotFoundError, PermissionError, ConnectionError: As `list_files`.
        BlockingIOError: Another process is fetching the same target.
        OSError: The disk is full, or the hub sent something else each time.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    report = progress or (lambda num_bytes: None)
    place = _Repository(file.repo_id, file.kind, file.endpoint)
    with _only_one(target):
        content: dict[str, Any] = {"size": file.size, "digest": file.digest}
        if not is_whole(target, **content):
            with contextlib.closing(PartialFile(target, **content)) as partial:
                report(partial.num_bytes)
                _persist(lambda: _fetch_rest(file, partial, report, patience), place, patience)
                partial.finish()
        report(file.size)
    return target


@dataclass(frozen=True)
class _Repository:
    """What error messages name."""

    repo_id: str
    kind: Kind
    endpoint: str | None

    @property
    def page(self) -> str:
        from huggingface_hub import constants

        folder = "datasets/" if self.kind == "dataset" else ""
        return f"{self.endpoint or constants.ENDPOINT}/{folder}{self.repo_id}"


@contextlib.contextmanager
def _only_one(target: Path) -> Iterator[None]:
    """Keep a second process from adding to the same partial file."""
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
            with contextlib.suppress(OSError):  # Windows keeps what is open
                path.unlink()


def _get_page(address: str, patience: Patience) -> tuple[list[dict[str, Any]], str | None]:
    """Return one page of a listing and the address of the next."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    answer = get_session().get(address, headers=build_hf_headers(), timeout=patience.timeout)
    hf_raise_for_status(answer)
    if not isinstance(entries := answer.json(), list):
        raise DamagedError("something else instead of a list of files")
    return entries, answer.links.get("next", {}).get("url")


def _to_file(entry: dict[str, Any], place: _Repository, commit: str) -> HubFile:
    return HubFile(
        repo_id=place.repo_id,
        kind=place.kind,
        revision=commit,
        path=entry["path"],
        size=entry["size"],
        digest=(entry.get("lfs") or entry)["oid"],
        endpoint=place.endpoint,
    )


def _fetch_rest(
    file: HubFile, partial: PartialFile, report: Callable[[int], None], patience: Patience
) -> None:
    """Ask for the bytes that are missing, once."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    if partial.num_bytes < file.size:
        where = {"repo_type": file.kind, "revision": file.revision, "endpoint": file.endpoint}
        url = hf_hub_url(file.repo_id, file.path, **where)
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if partial.num_bytes:
            headers["Range"] = f"bytes={partial.num_bytes}-"
        with get_session().stream("GET", url, headers=headers, timeout=patience.timeout) as answer:
            hf_raise_for_status(answer)
            _check_answer(answer, file, partial)
            for chunk in answer.iter_bytes():
                partial.append(chunk)
                report(partial.num_bytes)
    partial.check()


def _check_answer(answer: Any, file: HubFile, partial: PartialFile) -> None:
    """Refuse a page of HTML, and other bytes than those asked for, before they are written."""
    headers = answer.headers
    if headers.get("Content-Type", "").startswith("text/html") and ".htm" not in file.path:
        raise DamagedError("a page of HTML instead of data")
    start = partial.num_bytes if answer.status_code == 206 else 0
    place = headers.get("Content-Range", f"bytes {start}-")
    length = headers.get("Content-Length", f"{file.size - start}")
    is_other = int(length) != file.size - start and "Content-Encoding" not in headers
    if is_other or not place.startswith(f"bytes {start}-"):
        raise DamagedError(f"{length} bytes ({place}) of {file.size:,} from {start:,}")
    if start < partial.num_bytes:  # the server does not do ranges
        partial.clear()


def _persist(action: Callable[[], T], place: _Repository, patience: Patience) -> T:
    """Do something with the hub, again where that may help; say what to do where it cannot."""
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    reason, delay = "", patience.first_delay
    for num_tries in range(1, patience.num_tries + 1):
        wait = delay
        try:
            return action()
        except errors.OfflineModeIsEnabled:
            offline = f"{place.page} is not asked in offline mode; unset HF_HUB_OFFLINE"
            raise ConnectionError(offline) from None
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status not in (408, 429) and status < 500:
                raise _refusal(error, place) from error
            reason = f"HTTP {status}"
            asked = error.response.headers.get("Retry-After", "")
            wait = min(max(delay, float(asked if asked.isdigit() else 0)), _LONGEST_WAIT)
        except (httpx.RequestError, DamagedError, *_NO_JSON) as error:
            reason = str(error) or type(error).__name__
        if num_tries < patience.num_tries:
            _logger.warning("%s: %s; again in %.0f s", place.page, reason, wait)
            time.sleep(wait)
            delay *= 2
    raise ConnectionError(
        f"{place.page}: {patience.num_tries} tries failed, the last one with: {reason}; check the "
        "network and run again: what has arrived is kept"
    )


def _refusal(error: Any, place: _Repository) -> OSError:
    """Return what the hub's refusal means, and what to do."""
    from huggingface_hub import errors

    page, status = place.page, error.response.status_code
    match error:
        case errors.GatedRepoError():
            return PermissionError(
                f"{page} is gated: accept its terms on that page, then run `hf auth login`"
            )
        case errors.RevisionNotFoundError():
            return FileNotFoundError(f"{page} has no such revision; check its name on that page")
        case errors.RemoteEntryNotFoundError():
            return FileNotFoundError(f"{page} has no such file: {error.response.url}")
        case errors.RepositoryNotFoundError():
            hint = "check the name; for a private one, run `hf auth login`"
            return FileNotFoundError(f"{page} does not exist or is private: {hint}")
    if status in (401, 403):
        return PermissionError(f"{page} refuses the token (HTTP {status}): run `hf auth login`")
    return OSError(f"{page}: HTTP {status} for {error.response.url}; try again later")
