"""Runs that train adapters: the base stays, the checkpoints are small, and they resume."""

import dataclasses
import functools

import pytest
import torch
from safetensors.torch import load_file

from dimgpt.config import LoraConfig
from dimgpt.runtime import choose_runtime
from dimgpt.training.journal import read_history
from dimgpt.training.loss import compiled_loss
from dimgpt.training.trainer import Trainer

LORA = LoraConfig(rank=2, dropout=0.1)


@pytest.fixture
def make(make_trainer):
    return functools.partial(make_trainer, lora=LORA)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_only_adapters_move_and_are_saved_and_a_resumed_run_is_the_same(config, make, optimizer):
    config = dataclasses.replace(config, optimizer=optimizer)
    whole = make(config, folder="whole")
    before = {name: tensor.clone() for name, tensor in whole.model.state_dict().items()}
    summary = whole.fit()
    after = whole.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "lora" in name}
    make(dataclasses.replace(config, max_steps=4)).fit()
    resumed = make(config)
    resumed.fit()
    assert all(torch.equal(after[n], x) for n, x in resumed.model.state_dict().items())
    saved = load_file(resumed.checkpoints.path_of("step", 6) / "model.safetensors")
    assert saved.keys() == moved
    assert isinstance(resumed.optimizer, torch.optim.AdamW)
    assert summary.rows()["Trained parameters"] == read_history(whole.journal.path)[0]["trained"]


@pytest.mark.slow
def test_another_dropout_is_shown(config, make):
    make(dataclasses.replace(config, max_steps=2)).fit()
    seen, other = [], dataclasses.replace(LORA, dropout=0.2)
    make(config, lora=other, observers=[seen.append]).fit()
    assert seen[0]["changes"]["lora.dropout"] == "0.1 -> 0.2"


def test_branching_and_sharding_are_refused(config, make, tmp_path):
    with pytest.raises(ValueError, match="and lora.rank 2: a run with adapters begins at"):
        make(config, branch_from=tmp_path / "other").fit()
    two = dataclasses.replace(choose_runtime("fp32", "cpu"), num_processes=2)
    trainer = make(config)
    with pytest.raises(ValueError, match="sharding is 'full' and lora.rank 2"):
        Trainer(
            trainer.model,
            trainer.data,
            dataclasses.replace(config, sharding="full"),
            run_dir=tmp_path / "two",
            runtime=two,
        )


def test_a_loss_in_chunks_has_the_gradient_of_the_loss_in_one(config, make):
    trainer = make(config)
    batch = next(iter(trainer.data.batches(1)))
    model, gradients = trainer.model.eval(), []
    for num_chunks in (1, 3):
        changed = dataclasses.replace(config, loss_chunks=num_chunks)
        compiled_loss(model, changed, trainer.runtime)(batch).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
        model.zero_grad(set_to_none=True)
    assert all("lora" in name for name in gradients[0])
    torch.testing.assert_close(*gradients)
