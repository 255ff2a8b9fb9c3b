"""What CONTRIBUTING.md says about where to add what: done here, in the places that it names."""

import dataclasses
from typing import Literal

import pytest
import torch
from torch import nn
from toy_training import ToyData, config, make_trainer, one_thread

from dimgpt import presets
from dimgpt.cli import _read_flags
from dimgpt.config import ModelConfig, SourceConfig, TrainingConfig
from dimgpt.model import feed_forward, flops
from dimgpt.model.transformer import Transformer
from dimgpt.training import optimizer, trainer
from dimgpt.training.journal import read_history
from dimgpt.weights.originals import load_weights
from dimgpt.weights.store import save_model

__all__ = ["config", "make_trainer", "one_thread"]  # fixtures
SHAPE = {
    "vocab_size": 40,
    "context_length": 8,
    "window_size": 4,
    "embedding_dim": 16,
    "num_layers": 1,
    "num_heads": 2,
    "num_kv_heads": 1,
    "ffn_dim": 24,
}


class TanhNetwork(feed_forward.GeluNetwork):
    """down(tanh(up(x)))."""

    def forward(self, x):
        return self.down(self.up(x).tanh())


@pytest.fixture
def tanh(monkeypatch):
    """Add an activation: in the settings, among the modules, and among the costs."""
    field = ModelConfig.__dataclass_fields__["feed_forward"]
    monkeypatch.setattr(field, "type", Literal["swiglu", "gelu", "relu2", "tanh"])
    monkeypatch.setitem(feed_forward.FEED_FORWARDS, "tanh", TanhNetwork)
    usual = flops._expert_weights
    as_gelu = {"tanh": "gelu"}

    def count(config):
        kind = as_gelu.get(config.feed_forward, config.feed_forward)
        return usual(dataclasses.replace(config, feed_forward=kind))

    monkeypatch.setattr(flops, "_expert_weights", count)


@pytest.mark.slow
def test_an_activation_trains_saves_loads_and_counts_its_flops(tanh, tmp_path):
    config = ModelConfig(feed_forward="tanh", **SHAPE)
    torch.manual_seed(0)
    model, ids = Transformer(config), torch.arange(8)[None]
    adam = optimizer.build_optimizer(model, TrainingConfig(learning_rate=1e-2))
    losses = []
    for _ in range(5):
        loss = nn.functional.cross_entropy(model(ids)[0, :-1], ids[0, 1:])
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    save_model(model, tmp_path / "model")
    loaded = load_weights(tmp_path / "model")
    assert loaded.config == config
    assert flops.training_flops_per_token(config) == flops.training_flops_per_token(
        ModelConfig(feed_forward="gelu", **SHAPE)
    )


class SignDescent(torch.optim.Optimizer):
    """Move each weight by the rate, along the sign of a moving average of its gradient."""

    def __init__(self, groups):
        super().__init__(groups, {"lr": 0.0})
        self.found_inf = None

    @torch.no_grad()
    def step(self):
        if self.found_inf is not None and self.found_inf == 1:
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                average = self.state[parameter].setdefault("average", torch.zeros_like(parameter))
                average.lerp_(parameter.grad, 0.5)
                parameter -= group["lr"] * average.sign()


@pytest.fixture
def sign_descent(monkeypatch):
    """Add an optimizer: in the settings, and in its construction."""
    field = TrainingConfig.__dataclass_fields__["optimizer"]
    monkeypatch.setattr(field, "type", Literal["adamw", "muon", "sign"])
    monkeypatch.setattr(
        trainer, "build_optimizer", lambda *args: SignDescent(optimizer.parameter_groups(*args))
    )


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="optimizer is 'sign'"):
        TrainingConfig(optimizer="sign")


@pytest.mark.slow
def test_an_optimizer_learns_resumes_exactly_and_leaves_out_bad_steps(
    sign_descent, config, make_trainer, tmp_path
):
    config = dataclasses.replace(config, optimizer="sign")
    whole = make_trainer(config, folder="whole", data=ToyData(config, bad_steps=(3,)))
    whole.fit()
    losses = [
        row["loss"]
        for row in read_history(tmp_path / "whole" / "history.jsonl")
        if row["kind"] == "validation"
    ]
    assert losses[-1] < losses[0]
    for max_steps in (4, 6):
        part = dataclasses.replace(config, max_steps=max_steps)
        resumed = make_trainer(part, folder="parts", data=ToyData(part, bad_steps=(3,)))
        resumed.fit()
    for ours, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_preset_and_its_source_are_an_entry(monkeypatch):
    tales = SourceConfig(name="tales", path="tales/")
    mine = dataclasses.replace(
        presets.DEMO,
        name="mine",
        data=dataclasses.replace(presets.DEMO.data, sources=(tales,)),
    )
    monkeypatch.setitem(presets.PRESETS, "mine", mine)
    assert _read_flags("prepare", ["--preset", "mine"]).data.sources == (tales,)
    assert _read_flags("train", ["--preset", "mine"]).model == mine.model
