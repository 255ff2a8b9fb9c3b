"""Parameter groups: each parameter in one, each group with its own rate."""

import dataclasses

import pytest
import torch

from dimgpt.training.optimizer import (
    build_optimizer,
    learning_rate_at,
    parameter_groups,
    set_learning_rates,
)


@pytest.fixture
def model(config, make_trainer):
    return make_trainer(config).model


def test_groups_have_names_and_vectors_do_not_decay(model, config):
    groups = build_optimizer(model, config).param_groups
    assert [(g["name"], g["weight_decay"]) for g in groups] == [("matrices", 0.1), ("vectors", 0)]
    assert {p.dim() for p in groups[1]["params"]} == {1}


def test_vectors_decay_where_the_settings_say_so(model, config):
    config = dataclasses.replace(config, decay_vectors=True)
    groups = build_optimizer(model, config).param_groups
    assert [(g["name"], g["weight_decay"]) for g in groups] == [("matrices", 0.1), ("vectors", 0.1)]


def test_a_group_follows_its_own_schedule_and_scale(model, config):
    matrices, vectors = parameter_groups(model, config)
    matrices = {**matrices, "learning_rate_scale": 0.5}
    vectors = {**vectors, "schedule": lambda step: step / 100}
    optimizer = build_optimizer(model, config, [matrices, vectors])
    rate = set_learning_rates(optimizer, 3, config)
    assert rate == learning_rate_at(3, config)
    assert [group["lr"] for group in optimizer.param_groups] == [rate / 2, 0.03]


def test_a_parameter_in_no_group_or_in_two_is_refused_by_name(model, config):
    matrices, vectors = parameter_groups(model, config)
    with pytest.raises(ValueError, match=r"norm.weight is in the groups \[\]"):
        build_optimizer(model, config, [matrices])
    twice = {"name": "again", "params": vectors["params"][:1], "weight_decay": 0.0}
    with pytest.raises(ValueError, match=r"\['vectors', 'again'\]: .* exactly one"):
        build_optimizer(model, config, [matrices, vectors, twice])


def test_a_frozen_parameter_needs_no_group(model, config):
    model.final_norm.weight.requires_grad_(False)
    grouped = [p for group in build_optimizer(model, config).param_groups for p in group["params"]]
    assert not any(p is model.final_norm.weight for p in grouped)


def test_an_update_that_is_left_out_counts_no_step(model, config):
    optimizer = build_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.found_inf = torch.ones(())
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert {float(state["step"]) for state in optimizer.state.values()} == {0.0}
