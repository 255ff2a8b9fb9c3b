"""Twelve steps of DimensionGPT's own trainer, taken again; and its half-done run, taken over.

The original never trained its norms, so they are frozen here; their stale gradients, which shared
in its clipping, leave a difference of some thousandths.
"""

import dataclasses
import json
import math
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dimgpt.config import ModelConfig, TrainingConfig
from dimgpt.data.reading.batch import Batch
from dimgpt.runtime import choose_runtime
from dimgpt.training.journal import read_history
from dimgpt.training.original_run import read_original_run
from dimgpt.training.trainer import Trainer
from dimgpt.weights.checkpoints import LAYOUTS
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


def tiny_model():
    """Return the model of the fixture, with the norms frozen."""
    model = load_original(FIXTURES / "dimensiongpt" / "tiny.pt", MODEL).model
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("norm" not in name)
    return model


def make_trainer(folder, *, model=None, optimizer="adamw", **options):
    return Trainer(
        model or tiny_model(),
        OriginalBatches(),
        dataclasses.replace(RUN, checkpoint_interval=100, optimizer=optimizer),
        run_dir=folder,
        runtime=choose_runtime("fp32", "cpu"),
        **options,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    trainer = make_trainer(tmp_path_factory.mktemp("original"))
    trainer.fit()
    path = FIXTURES / "dimensiongpt_train" / "trajectory.json"
    return read_history(trainer.journal.path), json.loads(path.read_text())["log"]


@pytest.mark.slow
def test_the_learning_rates_are_the_originals(runs):
    ours = [record["learning_rate"] for record in runs[0] if record["kind"] == "step"]
    assert ours == pytest.approx([record["lr"] for record in runs[1]], rel=1e-6)


@pytest.mark.slow
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


class OriginalLoop:
    """A few lines that train as the original did, with plain AdamW, and save as it saved.

    The norms' gradients, which it never cleared, are left out.
    """

    def __init__(self):
        self.model, self.data, self.step = tiny_model().train(), OriginalBatches(), 0
        matrices = [p for p in self.model.parameters() if p.dim() >= 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": [], "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-5, foreach=False)

    def train_until(self, step):
        while self.step < step:
            self.step += 1
            for group in self.optimizer.param_groups:
                rate = 0.0006 + 0.0054 * (1 + math.cos(math.pi * (self.step - 4) / 16)) / 2
                group["lr"] = 0.006 * self.step / 4 if self.step < 4 else rate
            batches = self.data.batches(self.step)
            whole = sum(batch.weights.sum() for batch in batches)
            for batch in batches:
                logits = self.model(batch.inputs).flatten(0, 1)
                losses = torch.nn.functional.cross_entropy(
                    logits, batch.targets.flatten(), reduction="none"
                )
                ((losses * batch.weights.flatten()).sum() / whole).backward()
            torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()

    def save(self, folder):
        folder.mkdir(parents=True)
        weights = {LAYOUTS["dimensiongpt"].theirs(n): p for n, p in self.model.state_dict().items()}
        weights["final_linear.weight"] = weights["token_embedding.weight"]
        torch.save(weights, folder / "model.pt")
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")


METRICS = {
    "time": [0.0, 10.0],
    "step": [4, 8],
    "tokens": [8 * 65 * 4, 8 * 65 * 8],
    "epochs": [8 * 65 * 4 / 4_000, 8 * 65 * 8 / 4_000],
    "loss": [6.2, 6.1],
    "accuracy": [0.01, 0.02],
    "val_loss": [5.0, 5.5],
    "val_accuracy": [0.03, 0.04],
}


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    """The folder of a run that stopped at step 8, and its weights after step 12."""
    folder = tmp_path_factory.mktemp("half") / "output"
    loop = OriginalLoop()
    loop.train_until(4)
    loop.save(folder / "best")
    loop.train_until(8)
    loop.save(folder / "last")
    (folder / "metrics.pkl").write_bytes(pickle.dumps(METRICS, protocol=4))
    loop.train_until(12)
    return folder, loop.model.state_dict()


@pytest.mark.slow
def test_a_half_done_run_goes_on_as_the_original_would_have(half_done, tmp_path):
    folder, expected = half_done
    before = {path: path.read_bytes() for path in folder.rglob("*.p*")}
    trainer = make_trainer(tmp_path, branch_from=folder, num_train_tokens=4_000)
    summary = trainer.fit()
    assert {path: path.read_bytes() for path in before} == before
    for name, weights in trainer.model.state_dict().items():
        torch.testing.assert_close(weights, expected[name], atol=2e-5, rtol=0)
    name = "token_embedding.weight"
    assert (expected[name] - tiny_model().state_dict()[name]).abs().max() > 0.02
    assert (summary.step, summary.tokens) == (12, 12 * 8 * 64)
    assert summary.seconds > 10
    history = read_history(trainer.journal.path)
    curve = [(r["step"], r["tokens"], r["loss"]) for r in history if r["kind"] == "validation"]
    assert curve[:2] == [(4, 2_048, 5.0), (8, 4_096, 5.5)]
    assert [step for step, *_ in curve] == [4, 8, 12]
    assert [r["step"] for r in history if r["kind"] == "step"] == [4, 8, 9, 10, 11, 12]
    epochs = [r["epochs"] for r in history]
    assert epochs == pytest.approx([r["tokens"] / 4_000 for r in history])


@pytest.mark.slow
def test_the_best_weights_of_a_half_done_run_are_kept(half_done, tmp_path):
    trainer = make_trainer(tmp_path, branch_from=half_done[0])
    trainer.fit()
    best = trainer.checkpoints.load(tmp_path / "checkpoints" / "best-00000004")
    assert best.state["step"] == 4
    assert trainer.state.best_loss == 5.0
    assert set(best.tensors) == {"model"}
    weights = torch.load(half_done[0] / "best" / "model.pt", weights_only=True)
    embedding = best.tensors["model"]["token_embedding.weight"]
    assert torch.equal(embedding, weights["token_embedding.weight"])


@pytest.mark.slow
def test_a_run_whose_newest_weights_are_its_best_needs_no_others(copied):
    shutil.rmtree(copied / "best")
    assert read_original_run(copied, MODEL).best is None
    metrics(copied, val_loss=[5.0, 4.0])
    run = read_original_run(copied, MODEL)
    assert run.best == (run.state, run.tensors["model"])
    assert run.state.best_loss == 4.0


@pytest.mark.slow
def test_once_taken_over_a_run_resumes_from_its_own_checkpoint(half_done, tmp_path):
    make_trainer(tmp_path, branch_from=half_done[0]).fit()
    again = make_trainer(tmp_path, branch_from=Path("gone"))
    assert again.fit().step == 12


@pytest.fixture
def copied(half_done, tmp_path):
    return Path(shutil.copytree(half_done[0], tmp_path / "output"))


def test_metrics_ahead_of_the_last_save_are_dropped_with_a_warning(copied, tmp_path, caplog):
    ahead = {name: [*values, values[-1]] for name, values in METRICS.items()}
    ahead["step"][-1], ahead["val_loss"][-1] = 12, 1.0
    (copied / "metrics.pkl").write_bytes(pickle.dumps(ahead))
    run = read_original_run(copied, MODEL)
    assert (run.state.step, run.state.best_loss) == (8, 5.0)
    assert {record["step"] for record in run.history} == {4, 8}
    assert "reaches step 12, but the last save is of step 8" in caplog.text


def rewrite(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def metrics(folder, **changes):
    (folder / "metrics.pkl").write_bytes(pickle.dumps(METRICS | changes))


SPOILED = {
    "no optimizer": (
        lambda folder: (folder / "last" / "optimizer.pt").unlink(),
        r"optimizer\.pt is missing: .*`python -m dimgpt import",
    ),
    "no model": (lambda f: (f / "last" / "model.pt").unlink(), r"model\.pt is missing"),
    "no metrics": (lambda f: (f / "metrics.pkl").unlink(), r"metrics\.pkl is missing"),
    "code": (
        lambda f: (f / "metrics.pkl").write_bytes(pickle.dumps(print)),
        "none was run",
    ),
    "unequal lists": (lambda f: metrics(f, time=[0.0]), r"unequal lengths .*'time': 1, 'step': 2"),
    "a list is missing": (lambda f: metrics(f, time=None), "does not hold the lists time, step"),
    "no number": (lambda f: metrics(f, time=[0.0, "x"]), "entry 1 has values that are no numbers"),
    "not finite": (lambda f: metrics(f, val_loss=[1.0, float("nan")]), "entry 1 has values"),
    "another run": (lambda f: metrics(f, step=[4, 9]), r"no entry for step 8"),
    "an entry too few": (
        lambda f: rewrite(f / "last" / "optimizer.pt", lambda c: c["state"].pop(21)),
        "has 21 entries, but a model of 3 blocks has 22",
    ),
    "another shape": (
        lambda f: rewrite(
            f / "last" / "optimizer.pt", lambda c: c["state"][2].update(exp_avg=torch.ones(3))
        ),
        r"exp_avg of entry 2 is not a tensor of the shape \(32, 64\)",
    ),
    "several steps": (
        lambda f: rewrite(f / "last" / "optimizer.pt", lambda c: c["state"][2]["step"].add_(1)),
        r"several steps \(\[8, 9\]\)",
    ),
    "no optimizer of PyTorch": (
        lambda f: torch.save([1], f / "last" / "optimizer.pt"),
        "does not hold the state of a PyTorch optimizer",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("spoil", "message"), SPOILED.values(), ids=SPOILED)
def test_a_spoiled_run_is_refused_in_one_line(copied, tmp_path, spoil, message):
    spoil(copied)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        make_trainer(tmp_path / "run", branch_from=copied).fit()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"num_layers": 16, "embedding_dim": 1024},
            "has 3 blocks of width 64, but the settings ask for 16 of width 1,024",
        ),
        (
            {"vocab_size": 600},
            "vocabulary of 512 tokens, but the vocabulary here has 600: .*import-data",
        ),
        ({"ffn_dim": 128}, "ffn_dim is 170 in the file and 128 in the config"),
    ],
)
def test_another_model_is_refused_with_both_sizes(half_done, sizes, message):
    with pytest.raises(ValueError, match=message):
        read_original_run(half_done[0], dataclasses.replace(MODEL, **sizes))


@pytest.mark.slow
def test_another_batch_is_allowed_and_said(copied, tmp_path, caplog):
    metrics(copied, tokens=[2 * 8 * 65 * 4, 2 * 8 * 65 * 8])
    make_trainer(tmp_path / "run", branch_from=copied).fit()
    assert "has 1024 tokens a step, but this run has 512" in caplog.text


def test_a_run_is_not_taken_over_with_another_optimizer(half_done, tmp_path):
    trainer = make_trainer(tmp_path / "run", branch_from=half_done[0], optimizer="muon")
    with pytest.raises(ValueError, match="optimizer 'muon'.*continues only with optimizer"):
        trainer.fit()
