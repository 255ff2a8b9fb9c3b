"""The command for a GPU runs through at toy size, with no packages but those it names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# What the suite may need, and what torch and transformers bring with them.
ALLOWED = {
    *("torch", "numpy", "regex", "tqdm", "tokenizers", "transformers"),
    *("safetensors", "filelock", "packaging"),
    *("dimgpt", "benchmarks"),
}
SECTIONS = (
    "kernels",
    "experts",
    "precisions",
    "resume",
    "throughput",
    "decoding",
    "loss memory",
    "peer",
    "presets",
    "micro-batches",
)
RUNNER = f"""
import runpy, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        is_allowed = name.split(".")[0] in {ALLOWED!r} | sys.stdlib_module_names
        if not is_allowed and comes_from_here():
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)

def comes_from_here():
    frame, is_question = sys._getframe(2), False
    while frame and "importlib" in frame.f_code.co_filename:
        is_question |= "importlib.util" in frame.f_code.co_filename
        frame = frame.f_back
    return frame and not is_question and "site-packages" not in frame.f_code.co_filename

sys.meta_path.insert(0, Blocker())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "result.json"
    script = str(ROOT / "benchmarks" / "gpu_suite.py")
    command = [sys.executable, "-c", RUNNER, script, "--toy", "--device", "cpu"]
    run = subprocess.run(
        [*command, "--out", str(path)], cwd=path.parent, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout, json.loads(path.read_text())


def test_without_a_gpu_the_full_size_is_not_begun(tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_suite.py"), "--device", "cpu"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "no CUDA device" in run.stdout


def test_every_section_runs_without_an_error(finished):
    _, result = finished
    errors = {name: result[name].get("error") for name in SECTIONS}
    assert errors == dict.fromkeys(SECTIONS)


def test_the_last_line_is_the_file(finished):
    output, result = finished
    assert json.loads(output.splitlines()[-1]) == result


def test_without_a_gpu_the_figures_are_said_to_be_open(finished):
    assert "open" in finished[1]["figures"]


def test_kernels_and_resuming_are_right(finished):
    result = finished[1]
    assert result["kernels"]["all_right"]
    assert result["kernels"]["checked"] >= 8
    assert result["experts"]["is_right"]
    assert result["resume"]["same_batches"]
    assert result["resume"]["same_schedule"]
    assert result["resume"]["bitwise_equal_weights"]
