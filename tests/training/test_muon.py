"""Muon: what it does to a matrix, who gets it, and that it takes torch's steps."""

import dataclasses

import pytest
import torch
from torch import nn

from dimgpt.config import TrainingConfig
from dimgpt.training.muon import Muon, orthogonalise, orthogonalise_stacked
from dimgpt.training.optimizer import build_optimizer, muon_momentum_at, set_learning_rates


@pytest.fixture
def config(config):
    return dataclasses.replace(config, optimizer="muon")


@pytest.fixture
def model(config, make_trainer):
    return make_trainer(config).model


def no_adam():
    return torch.optim.AdamW([nn.Parameter(torch.zeros(1))])


@pytest.mark.parametrize("shape", [(24, 24), (8, 40), (40, 8)])
def test_an_update_has_the_singular_vectors_of_the_matrix_and_values_of_about_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    matrix = u @ torch.diag(values.clamp(min=0.1 * values.max())) @ v
    kept = u.T @ orthogonalise(matrix) @ v.T
    assert kept.diag().min() > 0.6
    assert kept.diag().max() < 1.25
    assert (kept - torch.diag(kept.diag())).abs().max() < 1e-4


@pytest.mark.parametrize("shape", [(3, 24, 24), (3, 8, 40), (1, 40, 8)])
def test_each_matrix_of_a_stack_is_updated_as_if_alone(shape):
    generator = torch.Generator().manual_seed(0)
    stack = nn.Parameter(torch.randn(shape, generator=generator))
    alone = [nn.Parameter(matrix.clone()) for matrix in stack.detach()]
    optimizer = Muon(
        [{"name": "m", "params": [stack, *alone], "weight_decay": 0.1, "momentum": 0.9}], no_adam()
    )
    optimizer.param_groups[0]["lr"] = 0.02
    for _ in range(3):
        stack.grad = torch.randn(shape, generator=generator)
        for number, matrix in enumerate(alone):
            matrix.grad = stack.grad[number] * 10**number  # an update ignores its size
        optimizer.step()
    torch.testing.assert_close(stack.detach(), torch.stack(alone).detach(), atol=1e-5, rtol=1e-5)


def test_matrices_of_one_shape_together_give_what_each_gives_alone():
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 9), (9, 6), (3, 6, 9), (6, 9), (4, 4)]
    matrices = [torch.randn(shape, generator=generator) for shape in shapes]
    alone = [orthogonalise(matrix) for matrix in matrices]
    for together, expected in zip(orthogonalise_stacked(matrices), alone, strict=True):
        torch.testing.assert_close(together, expected)


@pytest.mark.parametrize("shape", [(12, 12), (6, 24), (24, 6)])
def test_its_steps_are_those_of_torch(shape):
    generator = torch.Generator().manual_seed(1)
    ours = nn.Parameter(torch.randn(shape, generator=generator))
    theirs = nn.Parameter(ours.detach().clone())
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.9)
    group = {"name": "m", "params": [ours], "weight_decay": 0.1, "momentum": 0.9}
    optimizer = Muon([group], no_adam())
    optimizer.param_groups[0]["lr"] = 0.02
    for _ in range(5):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    # torch computes the update in bfloat16, which has 8 bits.
    assert ours.detach().numpy() == pytest.approx(theirs.detach().numpy(), abs=2e-3)


def test_it_gets_the_matrices_of_the_blocks_and_adamw_all_others(model, config):
    groups = {group["name"]: group for group in build_optimizer(model, config).param_groups}
    inner = groups["matrices of the blocks"]
    assert len(inner["params"]) == 7 * len(model.blocks)
    assert [p is model.token_embedding.weight for p in groups["matrices"]["params"]] == [True]
    assert {p.dim() for p in groups["vectors"]["params"]} == {1}
    assert inner["weight_decay"] == 0.0
    assert groups["matrices"]["weight_decay"] == 0.1


def test_it_gets_the_stacks_of_experts_and_adamw_their_routers(model, config, make_trainer):
    shape = dataclasses.replace(model.config, num_experts=4, use_shared_expert=True)
    model = make_trainer(config, model=shape).model
    groups = {group["name"]: group for group in build_optimizer(model, config).param_groups}
    inner = {id(parameter) for parameter in groups["matrices of the blocks"]["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in inner}
    assert len(names) == 10 * len(model.blocks)
    assert "blocks.1.feed_forward.down.weight" in names
    matrices = {id(parameter) for parameter in groups["matrices"]["params"]}
    assert matrices == {id(model.token_embedding.weight)} | {
        id(block.feed_forward.router.weight) for block in model.blocks
    }


def test_its_rate_rises_and_falls_with_that_of_the_run_and_its_momentum_rises(model, config):
    config = dataclasses.replace(config, muon_learning_rate=0.05, muon_warmup_steps=4)
    optimizer = build_optimizer(model, config)
    for step in (1, 2, 5):
        rate = set_learning_rates(optimizer, step, config)
        rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
        assert rates["vectors"] == rate
        assert rates["matrices of the blocks"] == pytest.approx(5 * rate)
    assert [muon_momentum_at(step, config) for step in (0, 2, 4, 9)] == pytest.approx(
        [0.85, 0.9, 0.95, 0.95]
    )


def test_a_cautious_decay_spares_what_the_update_enlarges_and_ends_with_the_run(model, config):
    matrix = nn.Parameter(torch.tensor([[1.0, -1.0], [1.0, 1.0]]))
    matrix.grad = torch.tensor([[1.0, 1.0], [-1.0, 1.0]])
    before, update = matrix.detach().clone(), orthogonalise(matrix.grad)
    group = {"name": "m", "params": [matrix], "weight_decay": 0.5, "momentum": 0.0}
    optimizer = Muon([{**group, "is_cautious": True}], no_adam())
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    decay = torch.tensor([[0.05, 0.0], [0.0, 0.05]])
    torch.testing.assert_close(matrix.detach(), before * (1 - decay) - 0.1 * update)
    config = dataclasses.replace(
        config, muon_weight_decay=0.4, muon_cautious_decay=True, max_steps=8, decay_steps=4
    )
    optimizer = build_optimizer(model, config)
    decays = []
    for step in (2, 4, 8):
        set_learning_rates(optimizer, step, config)
        decays.append(optimizer.param_groups[0]["weight_decay"])
    assert decays == pytest.approx([0.3, 0.2, 0.0])


def test_an_update_that_is_left_out_changes_neither_weights_nor_state(model, config):
    optimizer = build_optimizer(model, config)
    set_learning_rates(optimizer, 3, config)

    def take(gradient, found_inf):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.found_inf = torch.tensor(found_inf)
        optimizer.step()
        states = [value for state in optimizer.state.values() for value in state.values()]
        return [tensor.detach().clone() for tensor in (*model.parameters(), *states)]

    before = take(1.0, 0.0)
    left_out = take(float("nan"), 1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, left_out, strict=True))
    after = take(1.0, 0.0)
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("field", ["muon_learning_rate", "muon_weight_decay"])
def test_a_setting_of_muon_without_muon_is_refused(field):
    with pytest.raises(ValueError, match=rf"{field} is 0.5 and optimizer 'adamw': set optimizer"):
        TrainingConfig(**{field: 0.5})
