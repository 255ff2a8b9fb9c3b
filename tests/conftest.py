import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Toy tensors gain nothing from threads, and on a busy machine waiting for them takes minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests are imported by path (`--import-mode=importlib`), so what they share is, too.
_ROOT = Path(__file__).parents[1]
_PATH = Path(__file__).parent / "hub_server.py"
_SPEC = importlib.util.spec_from_file_location("hub_server", _PATH)
sys.modules["hub_server"] = _MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)


@pytest.fixture
def holding():
    """Return a context in which another process holds the lock of a file."""
    return _holding


@contextlib.contextmanager
def _holding(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    code = (
        "import pathlib, sys; from dimgpt.files import lock_file\n"
        "with lock_file(pathlib.Path(sys.argv[1]), refusal=''): print(); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": _ROOT}
    with subprocess.Popen(command, **options) as process:
        process.stdout.readline()
        yield process
        process.kill()


@pytest.fixture
def hub_server():
    """A hub on the loopback interface, without repositories."""
    with _MODULE.HubServer() as hub:
        yield hub
