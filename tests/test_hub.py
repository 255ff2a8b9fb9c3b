import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hub_server import Fault, blob_sha1, sha256

from dimgpt.hub import Patience, download_file, list_files

ROOT = Path(__file__).parents[1]
QUICK = Patience(first_delay=0.01, timeout=1)
WEIGHTS = bytes(range(256)) * 400
FILES = {
    "README.md": b"# Weights\n",
    "config.json": b"{}",
    "empty.txt": b"",
    "model.pt": WEIGHTS,
    "sub folder/été #1?.txt": "été\n".encode(),
}


@pytest.fixture
def hub(hub_server):
    hub_server.add("owner/weights", FILES)
    return hub_server


def files_of(hub, repo_id="owner/weights", kind="model", **options):
    return list_files(repo_id, kind=kind, endpoint=hub.endpoint, patience=QUICK, **options)


def weights_of(hub):
    return next(file for file in files_of(hub) if file.path == "model.pt")


def fetch(file, folder, *, patience=QUICK, **options):
    return download_file(file, folder / "model.pt", patience=patience, **options)


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


def test_all_files_are_listed_over_pages_with_size_hash_and_commit(hub):
    files = files_of(hub, revision="main")
    assert [file.path for file in files] == sorted(FILES)
    assert {file.revision for file in files} == {hub.repositories["models/owner/weights"].revision}
    for file in files:
        content = FILES[file.path]
        assert file.size == len(content)
        is_large = file.path.endswith(".pt")
        assert file.digest == (sha256(content) if is_large else blob_sha1(content))


@pytest.mark.parametrize("is_redirecting", [False, True])
def test_every_file_arrives_as_it_is(hub, tmp_path, is_redirecting):
    hub.is_redirecting = is_redirecting
    for file in files_of(hub):
        path = download_file(file, tmp_path / file.path, patience=QUICK)
        assert path.read_bytes() == FILES[file.path]
    arrived = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert arrived == set(FILES)


def test_a_token_stays_with_the_hub_when_the_file_is_on_another_host(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.is_redirecting = True
    fetch(weights_of(hub), tmp_path)
    asked, redirected = hub.asked("model.pt")
    assert asked.headers["authorization"] == "Bearer hf_secret"
    assert redirected.path.startswith("/cdn/")
    assert "authorization" not in redirected.headers


@pytest.mark.parametrize("kind", ["html", "shifted", "status", "longer"])
def test_an_answer_that_is_seen_to_be_wrong_costs_nothing_that_has_arrived(hub, tmp_path, kind):
    hub.fail("model.pt", Fault("cut", num_bytes=40_000), Fault(kind))
    assert fetch(weights_of(hub), tmp_path).read_bytes() == WEIGHTS
    ranges = [request.headers.get("range") for request in hub.asked("model.pt")]
    assert ranges == [None, "bytes=40000-", "bytes=40000-"]


def test_a_server_without_ranges_sends_all_again(hub, tmp_path):
    hub.fail("model.pt", Fault("cut", num_bytes=40_000), Fault("no-range"))
    assert fetch(weights_of(hub), tmp_path).read_bytes() == WEIGHTS
    assert len(hub.asked("model.pt")) == 2


def test_the_waits_double(hub, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    hub.fail("model.pt", *[Fault("status")] * 3)
    hub.fail("model.pt", Fault("status", status=429, headers=(("Retry-After", "70"),)))
    download_file(weights_of(hub), tmp_path / "model.pt")
    assert waits == [1, 2, 4, 70]


@pytest.mark.slow
def test_only_what_is_missing_is_asked_for(hub, tmp_path):
    hub.fail("model.pt", *[Fault("cut", num_bytes=20_000)] * 5)
    with pytest.raises(ConnectionError):
        fetch(weights_of(hub), tmp_path)
    fetch(weights_of(hub), tmp_path)
    ranges = [request.headers.get("range") for request in hub.asked("model.pt")]
    assert ranges == [None, *(f"bytes={20_000 * count}-" for count in range(1, 6))]


@pytest.mark.slow
def test_a_killed_download_goes_on_where_it_was(hub, tmp_path):
    file, target = weights_of(hub), tmp_path / "model.pt"
    hub.seconds_between_kilobytes = 0.01
    code = (
        "from pathlib import Path; from dimgpt.hub import HubFile, download_file; "
        f"download_file({file!r}, Path({str(target)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    partial = tmp_path / f"model.pt.{file.digest[:16]}.part"
    while not (partial.exists() and partial.stat().st_size > 10_000):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists()
    num_bytes = partial.stat().st_size
    hub.seconds_between_kilobytes = 0
    assert fetch(file, tmp_path).read_bytes() == WEIGHTS
    assert hub.asked("model.pt")[-1].headers["range"] == f"bytes={num_bytes}-"
    assert leftovers(tmp_path) == ["model.pt"]


@pytest.mark.slow
def test_a_partial_file_of_another_content_is_not_continued(hub, tmp_path):
    hub.fail("model.pt", *[Fault("cut", num_bytes=1000)] * 5)
    with pytest.raises(ConnectionError):
        fetch(weights_of(hub), tmp_path)
    hub.add("owner/weights", {"model.pt": WEIGHTS[::-1]})
    beside = tmp_path / f"model.pt.bin.{'0' * 16}.part"
    beside.write_bytes(b"of another file")
    assert fetch(weights_of(hub), tmp_path).read_bytes() == WEIGHTS[::-1]
    assert "range" not in hub.asked("model.pt")[-1].headers
    assert leftovers(tmp_path) == ["model.pt", beside.name]


@pytest.mark.parametrize("content", [b"x" * 1000, WEIGHTS + b"x", b"x" * len(WEIGHTS)])
def test_a_damaged_partial_file_is_thrown_away(hub, tmp_path, content):
    file = weights_of(hub)
    (tmp_path / f"model.pt.{file.digest[:16]}.part").write_bytes(content)
    assert fetch(file, tmp_path).read_bytes() == WEIGHTS


def test_a_right_file_is_kept_and_a_wrong_one_replaced(hub, tmp_path):
    file = weights_of(hub)
    assert fetch(file, tmp_path) == fetch(file, tmp_path)
    assert len(hub.asked("model.pt")) == 1
    (tmp_path / "model.pt").write_bytes(WEIGHTS[:-1] + b"\0")
    assert fetch(file, tmp_path).read_bytes() == WEIGHTS
    assert len(hub.asked("model.pt")) == 2


def test_progress_ends_at_the_size(hub, tmp_path):
    seen = []
    hub.fail("model.pt", Fault("cut", num_bytes=50_000), Fault("cut", num_bytes=10_000))
    fetch(weights_of(hub), tmp_path, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == len(WEIGHTS)


def test_a_full_disk_is_seen_before_anything_is_asked(hub, tmp_path):
    file = replace(weights_of(hub), size=10**18)
    with pytest.raises(OSError, match=r"needs 1000000000\.00 GB more.*make room"):
        fetch(file, tmp_path)
    assert hub.asked("model.pt") == []
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_a_disk_that_fills_up_keeps_what_has_arrived(hub, tmp_path):
    code = (
        "import resource, sys; from pathlib import Path; from dimgpt.hub import *; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)); "
        f"download_file({weights_of(hub)!r}, Path(sys.argv[1]))"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "model.pt")]
    failed = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "make room and run again" in failed.stderr.splitlines()[-1]
    assert not (tmp_path / "model.pt").exists()
    fetch(weights_of(hub), tmp_path)
    assert hub.asked("model.pt")[-1].headers["range"] == "bytes=50000-"


@pytest.mark.slow
def test_a_second_process_on_the_same_file_is_refused(hub, tmp_path):
    from huggingface_hub.utils import WeakFileLock

    with WeakFileLock(tmp_path / "model.pt.lock"), pytest.raises(BlockingIOError, match="another"):
        fetch(weights_of(hub), tmp_path)
    fetch(weights_of(hub), tmp_path)


@pytest.mark.parametrize(
    ("token", "state", "error", "message"),
    [
        (
            None,
            "is_gated",
            PermissionError,
            r"is gated: accept its terms.*hf auth login",
        ),
        ("hf_x", "is_gated", PermissionError, r"is gated: accept its terms on that page"),
        (None, "is_private", FileNotFoundError, r"does not exist or is private.*hf auth login"),
    ],
)
def test_a_closed_repository_says_what_to_do(
    hub, tmp_path, monkeypatch, token, state, error, message
):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    file = weights_of(hub)
    setattr(hub.repositories["models/owner/weights"], state, True)
    with pytest.raises(error, match=message) as caught:
        fetch(file, tmp_path)
    assert f"{hub.endpoint}/owner/weights" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(hub.asked("model.pt")) == 1


def test_a_token_that_is_refused_says_what_to_do(hub, tmp_path):
    message = ("X-Error-Message", "Invalid credentials in Authorization header")
    hub.fail("model.pt", Fault("status", status=401, headers=(message,)))
    with pytest.raises(
        PermissionError, match=r"refuses the token \(HTTP 401\): run `hf auth login`"
    ):
        fetch(weights_of(hub), tmp_path)


def test_a_long_name_fits(hub, tmp_path):
    name = f"{'x' * 225}.pt"
    hub.add("owner/weights", {name: WEIGHTS})
    (file,) = files_of(hub)
    assert download_file(file, tmp_path / name, patience=QUICK).read_bytes() == WEIGHTS


def test_what_is_missing_is_named(hub, tmp_path):
    with pytest.raises(FileNotFoundError, match="owner/nothing does not exist or is private"):
        files_of(hub, "owner/nothing")
    with pytest.raises(FileNotFoundError, match=r"datasets/owner/weights does not exist"):
        files_of(hub, kind="dataset")
    with pytest.raises(FileNotFoundError, match=r"owner/weights has no such revision"):
        files_of(hub, revision="v9")
    with pytest.raises(FileNotFoundError, match=r"has no such file: .*other\.pt"):
        fetch(replace(weights_of(hub), path="other.pt"), tmp_path)
    with pytest.raises(ValueError, match=r"a/b/c"):
        files_of(hub, "a/b/c")


@pytest.mark.slow
def test_a_listing_survives_faults_and_asks_no_page_twice(hub):
    end = f"tree/{hub.repositories['models/owner/weights'].revision}"
    hub.fail("models/owner/weights", Fault("html"), Fault("wrong"), Fault("stall"))
    hub.fail(end, Fault("status"), Fault("html"))
    hub.fail(f"{end}/", Fault("cut", num_bytes=3), Fault("stall"))
    assert len(files_of(hub)) == len(FILES)
    assert len(hub.asked(end)) == 3
    assert len(hub.asked(f"{end}/")) == 3


@pytest.mark.slow
def test_no_network_is_said_in_one_line(tmp_path):
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:9/owner/x: 5 tries.*check the net"):
        list_files("owner/x", kind="model", endpoint="http://127.0.0.1:9", patience=QUICK)


@pytest.mark.slow
def test_offline_mode_is_said_in_one_line(tmp_path):
    code = "from dimgpt.hub import *; list_files('owner/x', kind='model')"
    failed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "unset HF_HUB_OFFLINE" in failed.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "path", ["../x", "a/../../x", "/etc/x", "a//b", "a\\..\\x", "C:/x", "C:x", ".", "a/./b", "\0"]
)
def test_a_path_that_leads_out_of_its_folder_is_refused(hub, path):
    hub.add("owner/weights", {path: b"x", "model.pt": WEIGHTS})
    with pytest.raises(ValueError, match="leads out of its folder"):
        files_of(hub)


def test_a_hash_that_is_none_is_refused(hub):
    with pytest.raises(ValueError, match="unknown hash"):
        replace(weights_of(hub), digest=f"/{'0' * 63}")
