import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers

# Tests are imported by path (`--import-mode=importlib`): what they share has to be found, too.
_ROOT = Path(__file__).parents[1]
sys.path.append(str(_ROOT / "tests"))
# The models of the tests are tiny: one thread computes them in half the processor time of two.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What inductor would compile in other processes is nothing here, and each of them imports torch.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk():
    """No test can cut the power: what was written is there without waiting for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_measuring_of_the_peak():
    """To measure the peak of the CPU takes a tenth of a second a run, as long as a toy run."""
    with pytest.MonkeyPatch.context() as patch:
        if journal := sys.modules.get("dimgpt.training.journal"):  # imported by the tests of a run
            patch.setattr(journal, "peak_flops", lambda runtime: 1e12)
        yield


@pytest.fixture(scope="module")
def no_curves():
    """Leave out the picture of a toy run, most of its time; `test_commands.py` looks at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dimgpt.commands.training.save_curves", lambda *_: None)
        yield


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
    from hub_server import HubServer

    with HubServer() as hub:
        yield hub


# Files with real runs: they go first, so that no process waits for the last of them.
_LONG = ("test_notebooks", "test_distributed", "test_training_runs", "test_commands")
_LONG += ("test_killed_preparations", "test_killed_workers")


@pytest.fixture(scope="session")
def encode_template():
    """Encode a text whose special tokens count, as the original encodes its whole template."""

    def encode(tokenizer, text):
        backend = tokenizers.Tokenizer.from_str(tokenizer.to_bytes().decode())
        return backend.encode(text, add_special_tokens=False).ids

    return encode


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: _LONG.index(item.path.stem) if item.path.stem in _LONG else 9)
