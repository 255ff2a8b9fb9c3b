import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub_server import Fault, sha256

import dimgpt.commands.models
from dimgpt.cli import main
from dimgpt.hub import Patience
from dimgpt.weights.download import REPOSITORIES, download_model

ROOT = Path(__file__).parents[2]
QUICK = Patience(first_delay=0.01, timeout=5)
WEIGHTS = bytes(range(256)) * 400
MODEL = {
    "README.md": b"# lilLM\n",
    "config.json": b"{}",
    "checkpoints/best.pt": WEIGHTS,
    "checkpoints/last.pt": WEIGHTS[::-1],
    "tokenizer.json": b'{"model": {}}',
}
LEFT = {".gitattributes": b"", "train.py": b"raise SystemExit", "curve.png": b"\x89PNG"}
REPO_ID = REPOSITORIES["lillm-39m"]


@pytest.fixture
def hub(hub_server):
    hub_server.add(REPO_ID, {**MODEL, **LEFT})
    return hub_server


def download(hub, root, name="lillm-39m", **options):
    return download_model(name, root, endpoint=hub.endpoint, patience=QUICK, **options)


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def content_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "download.json"
    }


def test_a_known_model_is_fetched_with_a_record_of_where_it_is_from(hub, tmp_path, caplog):
    folder = download(hub, tmp_path)
    assert folder == tmp_path / "lillm-39m"
    assert content_of(folder) == MODEL
    record = json.loads((folder / "download.json").read_text())
    assert record == {
        "repo_id": REPO_ID,
        "revision": hub.repositories[f"models/{REPO_ID}"].revision,
        "files": {
            path: {"size": len(content), "sha256": sha256(content)}
            for path, content in MODEL.items()
        },
    }
    assert names_in(tmp_path) == ["lillm-39m"]
    left = ", ".join(sorted(LEFT))
    assert f"{REPO_ID}: these files are no part of a model and are not downloaded: {left}" in (
        caplog.text
    )


def test_any_repository_is_fetched_into_a_folder_of_its_name(hub, tmp_path):
    hub.add("owner/My-Model_1.0", {"model.safetensors": b"x"})
    folder = download(hub, tmp_path, "owner/My-Model_1.0")
    assert content_of(folder) == {"model.safetensors": b"x"}
    assert folder == tmp_path / "My-Model_1.0"


def test_a_model_that_is_there_is_kept_without_asking(hub, tmp_path):
    folder = download(hub, tmp_path)
    (folder / "notes.txt").write_text("mine")
    hub.requests.clear()
    assert download(hub, tmp_path) == folder
    assert hub.requests == []
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_file_that_is_lost_comes_back_and_a_changed_one_is_not_overwritten(hub, tmp_path):
    folder = download(hub, tmp_path)
    (folder / "checkpoints" / "best.pt").unlink()
    hub.requests.clear()
    download(hub, tmp_path)
    assert content_of(folder) == MODEL
    assert len(hub.asked(".json")) == 0
    (folder / "config.json").write_bytes(b"{ }")
    with pytest.raises(FileExistsError, match=r"changed after the download: config\.json; remove"):
        download(hub, tmp_path)
    assert (folder / "config.json").read_bytes() == b"{ }"


def test_another_revision_is_not_put_over_the_one_that_is_there(hub, tmp_path):
    folder = download(hub, tmp_path)
    old = hub.repositories[f"models/{REPO_ID}"].revision
    new = hub.add(REPO_ID, {"model.pt": b"new"}).revision
    assert content_of(download(hub, tmp_path, revision=old)) == MODEL
    with pytest.raises(FileExistsError, match=rf"holds {REPO_ID} at {old}; move .* at {new}"):
        download(hub, tmp_path, revision=new)
    folder.rename(tmp_path / "old")
    assert content_of(download(hub, tmp_path, revision=new)) == {"model.pt": b"new"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, "was not downloaded; move the folder away"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"repo_id": "a/b", "revision": "c", "files": {"x": {}}}', "is damaged"),
        (
            '{"repo_id": "a/b", "revision": "c", "files": {"../x": {"size": 1, "sha256": "%s"}}}'
            % ("0" * 64),
            "is damaged",
        ),
        ('{"repo_id": "a/b", "revision": "c", "files": {}}', "holds a/b at c"),
    ],
)
def test_a_folder_that_came_from_elsewhere_is_not_touched(hub, tmp_path, record, message):
    folder = tmp_path / "lillm-39m"
    folder.mkdir()
    (folder / "model.pt").write_bytes(b"trained for weeks")
    if record is not None:
        (folder / "download.json").write_text(record)
    with pytest.raises(FileExistsError, match=message):
        download(hub, tmp_path)
    assert content_of(folder) == {"model.pt": b"trained for weeks"}
    assert hub.requests == []


@pytest.mark.slow
def test_what_is_cut_off_leaves_no_folder_and_goes_on(hub, tmp_path):
    hub.fail("best.pt", *[Fault("cut", num_bytes=10_000)] * 5)
    with pytest.raises(ConnectionError):
        download(hub, tmp_path)
    assert names_in(tmp_path) == ["lillm-39m.download"]
    hub.requests.clear()
    assert content_of(download(hub, tmp_path)) == MODEL
    assert hub.asked("best.pt")[0].headers["range"] == "bytes=50000-"
    assert hub.asked("README.md") == []
    assert names_in(tmp_path) == ["lillm-39m"]


@pytest.mark.slow
def test_what_is_cut_off_goes_on_with_a_newer_revision(hub, tmp_path):
    hub.fail("last.pt", *[Fault("cut", num_bytes=10_000)] * 5)
    with pytest.raises(ConnectionError):
        download(hub, tmp_path)
    newer = {"README.md": b"# New\n", "checkpoints/best.pt": WEIGHTS}
    hub.add(REPO_ID, newer)
    assert content_of(download(hub, tmp_path)) == newer
    assert len(hub.asked("best.pt")) == 1


@pytest.mark.slow
def test_a_killed_download_goes_on(hub, tmp_path):
    hub.seconds_between_kilobytes = 0.01
    code = (
        "import sys; from pathlib import Path; from dimgpt.weights.download import *; "
        "download_model('lillm-39m', Path(sys.argv[1]), endpoint=sys.argv[2])"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path, hub.endpoint], cwd=ROOT)
    while not any(path.stat().st_size > 10_000 for path in tmp_path.rglob("best.pt.*.part")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert names_in(tmp_path) == ["lillm-39m.download"]
    hub.seconds_between_kilobytes = 0
    assert content_of(download(hub, tmp_path)) == MODEL
    assert hub.asked("best.pt")[-1].headers["range"] > "bytes=1"


def test_progress_counts_all_files(hub, tmp_path):
    seen = []
    download(hub, tmp_path, progress=lambda done, total: seen.append((done, total)))
    total = sum(map(len, MODEL.values()))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (total, total)
    assert {of for _, of in seen} == {total}


@pytest.mark.parametrize("path", ["../x.pt", "/tmp/x.pt", "a/../../x.pt", "..\\x.pt", "C:\\x.pt"])
def test_a_file_name_that_leads_out_of_the_folder_is_refused(hub, tmp_path, path):
    hub.add("owner/bad", {"model.pt": b"x", path: b"attack"})
    root = tmp_path / "a" / "models"
    with pytest.raises(ValueError, match="leads out of its folder"):
        download(hub, root, "owner/bad")
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        "lillm",
        "../x",
        "a/..",
        "a/../b",
        "/etc",
        "a/b/c",
        "a\\b",
        "~/x",
        "https://x.org/a",
        "é/a",
    ],
)
def test_an_unknown_name_lists_the_known_ones(hub, tmp_path, name):
    with pytest.raises(ValueError, match="lillm-39m, lillm-300m, dimensiongpt-0.2b, or owner/name"):
        download(hub, tmp_path, name)
    assert hub.requests == []


def test_where_dimensiongpt_is_is_explained(hub, tmp_path):
    with pytest.raises(ValueError, match=r"drive\.google\.com.*in a browser.*models/.*data/"):
        download(hub, tmp_path, "dimensiongpt-0.2b")
    assert hub.requests == []


def test_a_repository_without_a_model_is_refused(hub, tmp_path):
    hub.add("owner/pictures", LEFT)
    with pytest.raises(ValueError, match="owner/pictures contains no model files"):
        download(hub, tmp_path, "owner/pictures")
    assert names_in(tmp_path) == []


def test_a_gated_model_says_what_to_do(hub, tmp_path):
    hub.repositories[f"models/{REPO_ID}"].is_gated = True
    with pytest.raises(PermissionError, match=rf"{REPO_ID} is gated: accept its terms.*hf auth"):
        download(hub, tmp_path)


@pytest.mark.slow
def test_another_hub_is_named_by_the_library_s_own_variable(hub, tmp_path):
    code = (
        "import sys; from pathlib import Path; from dimgpt.weights.download import *; "
        "download_model('lillm-39m', Path(sys.argv[1]))"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint}
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, env=environment, check=True)
    assert content_of(tmp_path / "lillm-39m") == MODEL


@pytest.fixture
def verb(hub, monkeypatch):
    function = functools.partial(download_model, endpoint=hub.endpoint, patience=QUICK)
    monkeypatch.setattr(dimgpt.commands.models, "download_model", function)
    return lambda *words: main(["download", *words])


def test_the_verb_fetches_a_model_and_says_where_it_is(verb, tmp_path, capsys):
    verb("lillm-39m", "--models-root", str(tmp_path))
    assert capsys.readouterr().out == f"{tmp_path / 'lillm-39m'}\n"
    assert content_of(tmp_path / "lillm-39m") == MODEL


def test_the_verb_complains_in_one_line(verb, tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"^dimgpt download: http.*owner/no does not exist or is"):
        verb("owner/no", "--models-root", str(tmp_path))
    assert capsys.readouterr() == ("", "")
