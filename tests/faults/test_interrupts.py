"""The stop button of a notebook, pressed once or twice while a cell trains in a real kernel."""

import json
import os
import random
import tempfile
import time
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SETUP = """
import gc, weakref
from pathlib import Path
import torch
from dimgpt.config import TrainingConfig
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import choose_runtime
from dimgpt.training.trainer import Trainer
from toy_training import MODEL, ToyData

torch.set_num_threads(1)
config = TrainingConfig(
    batch_size=4,
    accumulation_steps=2,
    warmup_steps=2,
    max_steps=40,
    validation_interval=10,
    validation_batches=1,
    checkpoint_interval=8,
    precision="fp32",
)

def say(record):
    if record["kind"] == "step":
        print("step", record["step"], flush=True)
"""
CELL = """
torch.manual_seed(0)
trainer = Trainer(
    Transformer(MODEL),
    ToyData(config),
    config,
    run_dir=Path({folder!r}),
    runtime=choose_runtime("fp32", "cpu"),
    observers=[say],
)
summary = trainer.fit()
print("finished" if summary.is_finished else "stopped")
"""
FREE = """
model = weakref.ref(trainer.model)
del trainer
gc.collect()
print("kept" if model() else "freed")
"""


class Kernel:
    """A kernel that runs cells, and the button that interrupts them."""

    def __init__(self):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
            "OMP_NUM_THREADS": "1",
        }
        self.manager, self.client = start_new_kernel(
            kernel_name="python3", cwd=str(ROOT), env=environment
        )

    def run(self, code, *, press_at=None, presses=0, draw=None):
        """Run a cell; press the button after a step. Return its output and its error, if any."""
        request, printed, error = self.client.execute(code), "", None
        while True:
            message = self.client.get_iopub_msg(timeout=120)
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                printed += content["text"]
            elif message["msg_type"] == "error":
                error = content["ename"]
            elif content.get("execution_state") == "idle":
                return printed, error
            if presses and f"step {press_at}\n" in printed:
                for _ in range(presses):
                    time.sleep(draw.uniform(0, 0.004))
                    self.manager.interrupt_kernel()
                presses = 0


@pytest.fixture(scope="module")
def kernel():
    kernel = Kernel()
    try:
        assert kernel.run(SETUP) == ("", None)
        yield kernel
    finally:
        kernel.client.stop_channels()
        kernel.manager.shutdown_kernel(now=True)


def weights_and_moments(folder):
    manifest = json.loads((folder / "checkpoints/step-00000040/manifest.json").read_text())
    return {name: digest for name, digest in manifest.items() if name != "state.json"}


@pytest.fixture(scope="module")
def expected(kernel, tmp_path_factory):
    """Return what a run that nobody interrupts leaves behind."""
    folder = tmp_path_factory.mktemp("whole")
    kernel.run(CELL.format(folder=str(folder)))
    return weights_and_moments(folder)


@pytest.fixture
def interrupt(kernel, expected, tmp_path):
    """Return a function that interrupts runs, and checks what each is like afterwards."""

    def interrupt(presses, number):
        """Return the output and the error of each cell that was interrupted before its end."""
        draw, cells = random.Random(presses), []
        while len(cells) < number:
            folder = Path(tempfile.mkdtemp(dir=tmp_path))
            cell = CELL.format(folder=str(folder))
            step = draw.randint(1, 12)
            printed, error = kernel.run(cell, press_at=step, presses=presses, draw=draw)
            assert kernel.run(FREE) == ("freed\n", None)
            if "finished" in printed:
                continue
            cells.append((printed, error))
            assert kernel.run(cell)[0].endswith("step 40\nfinished\n")
            assert weights_and_moments(folder) == expected
        return cells

    return interrupt


def test_an_interrupted_cell_saves_frees_its_memory_and_goes_on_bit_for_bit(interrupt, fault):
    for printed, error in interrupt(1, 6):
        assert error is None
        assert printed.endswith("stopped\n")
        fault(21)


def test_a_cell_that_is_interrupted_twice_at_once_goes_on_bit_for_bit(interrupt, fault):
    errors = [error for _, error in interrupt(2, 6)]
    assert "KeyboardInterrupt" in errors
    assert {*errors} <= {"KeyboardInterrupt", None}
    fault(21, len(errors))
