"""A toy model and toy batches that are a pure function of the step, for tests of the trainer.

`conftest.py` of `training/` and of `faults/` import the fixtures, worker processes the rest.
"""

import numpy as np
import pytest
import torch

from dimgpt.config import ModelConfig, TrainingConfig
from dimgpt.data.reading.batch import make_batches
from dimgpt.model.lora import add_adapters
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import choose_runtime
from dimgpt.training.trainer import Trainer

MODEL = ModelConfig(
    vocab_size=32,
    context_length=16,
    window_size=8,
    embedding_dim=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    ffn_dim=24,
)


class ToyData:
    """Rows of `0 1 2 ...` from a random start, so that there is something to learn."""

    def __init__(self, config, *, bad_steps=()):
        self.config, self.bad_steps = config, bad_steps
        self.steps_read = []

    def batches(self, step):
        self.steps_read.append(step)
        generator = np.random.default_rng((self.config.seed, step))
        weights = generator.random((self.config.sequences_per_step, 17)).astype(np.float32)
        if step in self.bad_steps:
            weights[:] = np.nan
        return self._make(generator, weights)

    def validation_batches(self, num_batches):
        generator = np.random.default_rng(0)
        weights = np.ones((num_batches * self.config.batch_size, 17), dtype=np.float32)
        return self._make(generator, weights)

    def _make(self, generator, weights):
        starts = generator.integers(32, size=(len(weights), 1))
        rows = (starts + np.arange(17)) % 32
        return make_batches(rows.astype(np.int64), weights, batch_size=self.config.batch_size)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Sums depend on the number of threads: bit-exact claims hold for one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def config():
    return TrainingConfig(
        batch_size=4,
        accumulation_steps=2,
        learning_rate=1e-2,
        min_learning_rate=1e-3,
        warmup_steps=2,
        decay_steps=8,
        max_steps=6,
        validation_interval=3,
        validation_batches=2,
        checkpoint_interval=2,
        precision="fp32",
    )


@pytest.fixture
def make_trainer(tmp_path):
    def make(config, *, folder="run", data=None, model=MODEL, lora=None, seed=0, **options):
        torch.manual_seed(seed)
        transformer = Transformer(model)
        if lora is not None:
            add_adapters(transformer, lora)
        return Trainer(
            transformer,
            data or ToyData(config),
            config,
            run_dir=tmp_path / folder,
            runtime=choose_runtime("fp32", "cpu"),
            **options,
        )

    return make
