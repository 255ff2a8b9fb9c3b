"""Twelve steps of DimensionGPT's own trainer, taken again from the same weights and batches.

The original never trained its norms, so they are frozen here; their stale gradients, which shared
in its clipping, leave a difference of some thousandths.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dimgpt.config import ModelConfig, TrainingConfig
from dimgpt.data.reading.batch import Batch
from dimgpt.runtime import choose_runtime
from dimgpt.training.journal import read_history
from dimgpt.training.trainer import Trainer
from dimgpt.weights.originals import load_original

FIXTURES = Path(__file__).parents[1] / "fixtures"
PADDING = 1
MODEL = ModelConfig(
    vocab_size=512,
    context_length=64,
    window_size=16,
    embedding_dim=64,
    num_heads=4,
    num_kv_heads=2,
    ffn_dim=170,
    num_layers=3,
)
RUN = TrainingConfig(
    batch_size=4,
    accumulation_steps=2,
    learning_rate=0.006,
    min_learning_rate=0.0006,
    warmup_steps=4,
    decay_steps=16,
    max_steps=12,
    validation_interval=4,
    validation_batches=2,
    precision="fp32",
)


class OriginalBatches:
    """The original's batches in their order.

    It divided each micro-batch by its own sum of weights; ours divides a step by its sum. Weights
    that are divided beforehand make both the same.
    """

    def __init__(self):
        self.arrays = np.load(FIXTURES / "dimensiongpt_train" / "batches.npz")
        self.validations = 0

    def batches(self, step):
        return [self._batch("train", number) for number in (2 * step - 2, 2 * step - 1)]

    def validation_batches(self, num_batches):
        self.validations += 1
        return [self._batch("val", 2 * self.validations - 2 + i) for i in range(num_batches)]

    def _batch(self, split, number):
        x, y, weights = (
            torch.from_numpy(self.arrays[f"{split}_{name}"][number])
            for name in ("x", "y", "strength")
        )
        weights = weights / weights.sum()
        return Batch(inputs=x, targets=y, weights=weights * (y != PADDING))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    model = load_original(FIXTURES / "dimensiongpt" / "tiny.pt", MODEL).model
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" not in name)
    trainer = Trainer(
        model,
        OriginalBatches(),
        dataclasses.replace(RUN, checkpoint_interval=100),
        run_dir=folder,
        runtime=choose_runtime("fp32", "cpu"),
    )
    trainer.fit()
    path = FIXTURES / "dimensiongpt_train" / "trajectory.json"
    return read_history(trainer.journal.path), json.loads(path.read_text())["log"]


def test_the_learning_rates_are_the_originals(runs):
    ours = [record["learning_rate"] for record in runs[0] if record["kind"] == "step"]
    assert ours == pytest.approx([record["lr"] for record in runs[1]], rel=1e-6)


def test_the_losses_are_the_originals(runs):
    data = OriginalBatches()
    ours = [
        record["loss"] * counted_share(data.batches(record["step"]))
        for record in runs[0]
        if record["kind"] == "step"
    ]
    theirs = [record["loss"] for record in runs[1]]
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert ours == pytest.approx(theirs, rel=2e-3)


def test_the_validation_losses_are_the_originals(runs):
    data = OriginalBatches()
    ours = [
        record["loss"] * counted_share(data.validation_batches(2))
        for record in runs[0]
        if record["kind"] == "validation"
    ]
    theirs = [record["val_loss"] for record in runs[1] if record["step"] % 4 == 0]
    assert ours == pytest.approx(theirs, rel=2e-3)


def counted_share(batches):
    """Return the weight that is not on padding, which stays in the original's denominator."""
    return sum(float(batch.weights.sum()) for batch in batches) / len(batches)
