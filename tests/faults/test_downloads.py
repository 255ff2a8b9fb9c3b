"""Downloads of models from a hub that fails: what is overcome, and what ends in one line."""

import functools
import json

import pytest
from hub_server import Fault, sha256

import dimgpt.commands.models
from dimgpt.cli import main
from dimgpt.hub import Patience
from dimgpt.weights.download import REPOSITORIES, download_model

pytestmark = pytest.mark.slow

WEIGHTS = bytes(range(256)) * 400
MODEL = {"config.json": b"{}", "checkpoints/best.pt": WEIGHTS}


@pytest.fixture
def download(hub_server, tmp_path, monkeypatch):
    """Run `python -m dimgpt download` against a hub of ours; return the model's folder."""
    hub_server.add(REPOSITORIES["lillm-39m"], MODEL)

    def run(timeout):
        patience = Patience(first_delay=0.01, timeout=timeout)
        ours = functools.partial(download_model, endpoint=hub_server.endpoint, patience=patience)
        monkeypatch.setattr(dimgpt.commands.models, "download_model", ours)
        main(["download", "lillm-39m", "--models-root", str(tmp_path)])
        return tmp_path / "lillm-39m"

    return run


FAULTS = {
    "cut": [Fault("cut", num_bytes=40_000)],
    "cut at once": [Fault("cut")],
    "cut four times": [Fault("cut", num_bytes=10_000)] * 4,
    "5xx": [Fault("status", status=503), Fault("status", status=500)],
    "too many requests": [Fault("status", status=429, headers=(("Retry-After", "0"),))],
    "stalled": [Fault("stall", num_bytes=30_000)],
    "HTML instead of data": [Fault("html")],
    "wrong bytes": [Fault("wrong")],
    "too many bytes": [Fault("longer")],
    "cut, then HTML": [Fault("cut", num_bytes=40_000), Fault("html")],
    "wrong bytes, then cut": [Fault("wrong"), Fault("cut", num_bytes=100)],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_overcome(download, hub_server, tmp_path, faults, fault):
    hub_server.fail("best.pt", *faults)
    folder = download(timeout=1)
    assert (folder / "checkpoints" / "best.pt").read_bytes() == WEIGHTS
    record = json.loads((folder / "download.json").read_text())
    assert record["files"]["checkpoints/best.pt"]["sha256"] == sha256(WEIGHTS)
    assert [path.name for path in tmp_path.iterdir()] == ["lillm-39m"]
    assert not list(tmp_path.rglob("*.part"))
    assert len(hub_server.asked("best.pt")) == len(faults) + 1
    fault(7)


FOR_EVER = {
    "cut": Fault("cut", num_bytes=10),
    "5xx": Fault("status", status=502),
    "stalled": Fault("stall"),
    "HTML": Fault("html"),
    "wrong": Fault("wrong"),
}


@pytest.mark.parametrize("kind", FOR_EVER.values(), ids=FOR_EVER)
def test_a_fault_that_stays_ends_after_five_tries_without_the_final_name(
    download, hub_server, tmp_path, kind, fault
):
    hub_server.fail("best.pt", *[kind] * 9)
    with pytest.raises(SystemExit, match=r"^dimgpt download: .*5 tries failed.*run again") as stop:
        download(timeout=0.2 if kind.kind == "stall" else 5)
    assert "\n" not in stop.value.code
    assert len(hub_server.asked("best.pt")) == 5
    assert not list(tmp_path.rglob("best.pt"))
    assert not (tmp_path / "lillm-39m").exists()
    fault(7)
