"""A hub on the loopback interface: real HTTP, the part of the protocol that the clients use.

It serves repositories of models and data sets to `huggingface_hub` and `datasets`: information,
listings in pages, hashes, files with ranges, redirects to another host. On command a request goes
wrong: it is cut, stalls, gets 5xx, a page of HTML, or wrong bytes. It knows one revision at a time
of a repository, and no xet.
"""

import hashlib
import json
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LFS_SUFFIXES = (".parquet", ".pt", ".pth", ".bin", ".safetensors", ".gz", ".zst")
PAGE_LENGTH = 3
_HTML = b"<!DOCTYPE html><html><body>Sign in to this network first</body></html>"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request.

    `kind`: "cut" after `num_bytes` of the body, "stall" after them, "status" `status`, "html",
    "wrong" bytes, "longer" (bytes too many), "no-range" (the whole file whatever was asked),
    "shifted" (another part than the one that was asked for).
    """

    kind: str
    num_bytes: int = 0
    status: int = 503
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Repository:
    """The files of one revision, and who may read them."""

    files: dict[str, bytes]
    is_gated: bool = False
    is_private: bool = False

    @property
    def revision(self) -> str:
        """Return a commit hash, which follows the content."""
        state = hashlib.sha1()
        for path, content in sorted(self.files.items()):
            state.update(path.encode() + b"\0" + hashlib.sha1(content).digest())
        return state.hexdigest()


@dataclass
class Request:
    """What a client asked for."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class HubServer:
    """The hub's state; `with HubServer() as hub:` serves it at `hub.endpoint`."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    is_redirecting: bool = False
    seconds_between_kilobytes: float = 0.0

    def add(self, repo_id: str, files: Mapping[str, bytes], *, kind: str = "model") -> Repository:
        """Put a repository up, in the place of an older one."""
        repository = Repository(files=dict(files))
        self.repositories[f"{kind}s/{repo_id}"] = repository
        return repository

    def fail(self, path: str, *faults: Fault) -> None:
        """Let the next requests whose address ends so go wrong, one fault each."""
        self.faults.setdefault(path, []).extend(faults)

    def asked(self, end: str, method: str = "GET") -> list[Request]:
        """Return the requests whose path ends so."""
        return [
            request
            for request in self.requests
            if request.method == method and request.path.endswith(end)
        ]

    def next_fault(self, path: str) -> Fault | None:
        """Take the next fault that is meant for this address."""
        for end, faults in self.faults.items():
            if path.endswith(end) and faults:
                return faults.pop(0)
        return None

    def __enter__(self) -> "HubServer":
        self._stopped = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler_of(self, self._stopped))
        self.port = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._thread.join()
        # Not server_close(): it would wait for the threads of connections that clients keep open.
        self._server.socket.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *address: object) -> None:
        """Say nothing of clients that were killed, which are part of the tests."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*address)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _inverted(content: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in content)


def _entry(path: str, content: bytes) -> dict:
    entry = {"type": "file", "path": path, "size": len(content), "oid": blob_sha1(content)}
    if path.endswith(LFS_SUFFIXES):
        entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
    return entry


def _folders(files: Mapping[str, bytes]) -> set[str]:
    parts = [path.split("/")[:-1] for path in files]
    return {"/".join(part[:depth]) for part in parts for depth in range(1, len(part) + 1)}


def _tree(files: Mapping[str, bytes], folder: str, *, is_recursive: bool) -> list[dict]:
    start = f"{folder}/" if folder else ""
    entries = [_entry(path, content) for path, content in files.items()]
    entries += [
        {"type": "directory", "path": path, "size": 0, "oid": blob_sha1(path.encode())}
        for path in _folders(files)
    ]
    inside = [entry for entry in entries if entry["path"].startswith(start)]
    if not is_recursive:
        inside = [entry for entry in inside if "/" not in entry["path"][len(start) :]]
    return sorted(inside, key=lambda entry: entry["path"])


def _handler_of(hub: HubServer, stopped: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:  # noqa: N802
            self._serve()

        def do_HEAD(self) -> None:  # noqa: N802
            self._serve()

        def do_POST(self) -> None:  # noqa: N802
            self._serve()

        def log_message(self, *_: object) -> None:
            pass

        def _serve(self) -> None:
            address = urlsplit(self.path)
            path = unquote(address.path)
            self._body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            hub.requests.append(Request(self.command, path, headers))
            is_head = self.command == "HEAD"
            self._fault = (None if is_head else hub.next_fault(path)) or Fault("none")
            if self._fault.kind == "status":
                self._send(
                    b"Service unavailable", status=self._fault.status, headers=self._fault.headers
                )
            elif self._fault.kind == "html":
                self._send(_HTML, headers=(("Content-Type", "text/html; charset=utf-8"),))
            else:
                self._route(path, parse_qs(address.query))

        def _route(self, path: str, query: dict[str, list[str]]) -> None:
            is_signed = path.startswith("/cdn/")
            parts = path.removeprefix("/cdn").strip("/").split("/")
            is_api = parts[0] == "api"
            parts = parts[1:] if is_api else parts
            kind = parts.pop(0) if parts[0] in ("models", "datasets") else "models"
            name = "/".join(parts[:2])
            repository = hub.repositories.get(f"{kind}/{name}")
            is_known = "authorization" in hub.requests[-1].headers or is_signed
            if repository is None or (repository.is_private and not is_known):
                status = 404 if is_known else 401
                self._refuse(status, "RepoNotFound", "Repository not found")
                return
            what, revision, *rest = [*parts[2:], "", ""]
            if what and revision not in ("main", repository.revision):
                self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            elif is_api:
                self._answer(kind, name, repository, what, "/".join(rest).strip("/"), query)
            elif repository.is_gated:
                status = 403 if "authorization" in self.headers else 401
                self._refuse(status, "GatedRepo", f"Access to {kind} {name} is restricted")
            else:
                self._resolve(repository, "/".join(rest).strip("/"), is_signed=is_signed)

        def _answer(
            self,
            kind: str,
            name: str,
            repository: Repository,
            what: str,
            rest: str,
            query: dict[str, list[str]],
        ) -> None:
            if what in ("", "revision"):
                siblings = [{"rfilename": path} for path in repository.files]
                self._json({"id": name, "sha": repository.revision, "siblings": siblings})
            elif what == "tree":
                is_recursive = query.get("recursive", ["false"])[0].lower() == "true"
                entries = _tree(repository.files, rest, is_recursive=is_recursive)
                if rest and not entries:
                    self._refuse(404, "EntryNotFound", f"{rest} does not exist")
                    return
                start = int(query.get("cursor", ["0"])[0])
                end = start + PAGE_LENGTH
                flags = f"recursive={str(is_recursive).lower()}&cursor={end}"
                address = f"{hub.endpoint}/api/{kind}/{name}/tree/{repository.revision}/{rest}"
                link = (("Link", f'<{address}?{flags}>; rel="next"'),) if end < len(entries) else ()
                self._json(entries[start:end], headers=link)
            elif what == "paths-info":
                wanted = (
                    parse_qs(self._body.decode()).get("paths") or json.loads(self._body)["paths"]
                )
                entries = _tree(repository.files, "", is_recursive=True)
                self._json([entry for entry in entries if entry["path"] in wanted])
            else:
                self._refuse(404, "EntryNotFound", f"no such address: {what}")

        def _resolve(self, repository: Repository, path: str, *, is_signed: bool) -> None:
            content = repository.files.get(path)
            if content is None:
                self._refuse(404, "EntryNotFound", f"{path} does not exist")
                return
            headers = [("X-Repo-Commit", repository.revision), ("Accept-Ranges", "bytes")]
            headers.append(("ETag", f'"{blob_sha1(content)}"'))
            if path.endswith(LFS_SUFFIXES):
                headers.append(("X-Linked-Etag", f'"{sha256(content)}"'))
                headers.append(("X-Linked-Size", str(len(content))))
            if hub.is_redirecting and not is_signed:
                # Another host name for the same server, as the hub sends people to its CDN.
                target = f"http://localhost:{hub.port}/cdn{self.path}"
                self._send(b"", status=302, headers=[*headers, ("Location", target)])
                return
            self._send_file(content, headers)

        def _send_file(self, content: bytes, headers: list[tuple[str, str]]) -> None:
            kind = self._fault.kind
            if kind == "wrong":
                content = _inverted(content)
            if kind == "longer":
                content += b"more"
            start, end = 0, len(content)
            asked = self.headers.get("Range", "")
            if asked.startswith("bytes=") and kind != "no-range":
                first, last = asked.removeprefix("bytes=").split("-")
                start, end = int(first), min(int(last or end - 1) + 1, end)
                start -= kind == "shifted"
                if start >= len(content):
                    self._send(b"", status=416)
                    return
                headers = [*headers, ("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")]
            status = 206 if (start, end) != (0, len(content)) else 200
            self._send(content[start:end], status=status, headers=headers)

        def _send(
            self,
            body: bytes,
            *,
            status: int = 200,
            headers: object = (),
        ) -> None:
            headers = dict(headers)
            self.send_response(status)
            headers.setdefault("Content-Type", "application/octet-stream")
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            try:
                self._write(body)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _write(self, body: bytes) -> None:
            fault = self._fault
            if fault.kind in ("cut", "stall"):
                self.wfile.write(body[: fault.num_bytes])
                self.wfile.flush()
                if fault.kind == "stall":
                    stopped.wait()
                self.close_connection = True
                return
            if not hub.seconds_between_kilobytes:
                self.wfile.write(body)
                return
            for start in range(0, len(body), 1024):
                self.wfile.write(body[start : start + 1024])
                time.sleep(hub.seconds_between_kilobytes)

        def _json(self, value: object, *, headers: object = ()) -> None:
            headers = (*headers, ("Content-Type", "application/json"))
            content = json.dumps(value).encode()
            is_wrong = self._fault.kind == "wrong"
            self._send(_inverted(content) if is_wrong else content, headers=headers)

        def _refuse(self, status: int, code: str, message: str) -> None:
            headers = (("X-Error-Code", code), ("X-Error-Message", message))
            self._send(json.dumps({"error": message}).encode(), status=status, headers=headers)

    return Handler
