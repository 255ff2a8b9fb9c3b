"""Claims about training models with experts: their losses, their balance, and their runs."""

import dataclasses

import numpy as np
import pytest
import torch

from dimgpt.config import ModelConfig, TrainingConfig
from dimgpt.data.reading.batch import Batch, make_batches
from dimgpt.model import experts
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import choose_runtime
from dimgpt.training.loss import compiled_loss, router_losses
from dimgpt.training.optimizer import build_optimizer

MODEL = ModelConfig(
    vocab_size=32,
    context_length=16,
    window_size=8,
    embedding_dim=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    ffn_dim=24,
    num_experts=4,
)
CPU = choose_runtime("fp32", "cpu")
WITHOUT = {"router_balance_loss": 0.0, "router_z_loss": 0.0}


def make_batch(num_rows=3):
    generator = np.random.default_rng(num_rows)
    rows = generator.integers(32, size=(num_rows, 17))
    weights = generator.random((num_rows, 17)).astype(np.float32)
    return make_batches(rows, weights, batch_size=num_rows)[0]


def loss_function(model, **settings):
    return compiled_loss(model, TrainingConfig(**{"batch_size": 3, **settings}), CPU)


def make_model(**options):
    torch.manual_seed(0)
    return Transformer(dataclasses.replace(MODEL, init_std=0.2, **options))


def gradients(model, batch, **settings):
    loss = loss_function(model, **settings)(batch).loss
    return loss, torch.autograd.grad(loss, list(model.parameters()))


def test_the_balance_is_1_where_all_experts_are_equal_and_most_where_one_gets_all():
    weights = torch.tensor([[1.0, 1.0, 0.5, 1.5], [2.0, 2.0, 2.0, 2.0]])
    equal = 50 * torch.eye(4).expand(2, 4, 4)[:, torch.tensor([0, 1, 2, 3])]
    balance, _ = router_losses([equal], torch.ones(2, 4), experts_per_token=1)
    assert balance.item() == pytest.approx(8)  # 1 for each of 8 tokens
    skewed = torch.tensor([50.0, 0.0, 0.0, 0.0]).expand(2, 4, 4)
    for per_token, most in ((1, 4), (2, 2)):
        balance, _ = router_losses([skewed, skewed], weights, experts_per_token=per_token)
        assert balance.item() == pytest.approx(2 * most * 12)


def test_the_losses_are_those_of_the_papers_for_two_tokens():
    logits = torch.tensor([[[1.0, 0.0, 2.0], [0.5, 1.5, 0.0]]])
    p, q = logits[0].softmax(dim=-1)
    expected = 2 * 3 * (0.5 * (p[2] + q[2]) / 2 + 0.5 * (p[1] + q[1]) / 2)
    balance, large = router_losses([logits], torch.ones(1, 2), experts_per_token=1)
    torch.testing.assert_close(balance, expected)
    torch.testing.assert_close(large, logits.logsumexp(dim=-1).square().sum())


def test_tokens_without_weight_count_in_no_loss():
    logits, weights = torch.randn(2, 5, 4), torch.ones(2, 5)
    weights[0, 3:], weights[1] = 0, 0
    all_losses = router_losses([logits], weights, experts_per_token=2)
    alone = router_losses([logits[:1, :3]], torch.ones(1, 3), experts_per_token=2)
    torch.testing.assert_close(all_losses, alone)


def test_the_loss_that_is_shown_is_the_cross_entropy_and_the_gradient_has_the_others_too():
    model, batch = make_model(), make_batch()
    loss, with_router = gradients(model, batch)
    plain, without = gradients(model, batch, **WITHOUT)
    assert torch.equal(loss, plain)
    routing = model.hidden_states_and_routing(batch.inputs)[1]
    balance, large = router_losses(routing, batch.weights, experts_per_token=2)
    parameters = list(model.parameters())
    more = torch.autograd.grad(0.01 * balance + 0.001 * large, parameters, allow_unused=True)
    for total, first, second in zip(with_router, without, more, strict=True):
        torch.testing.assert_close(total, first if second is None else first + second)
    with torch.no_grad():
        assert torch.equal(loss_function(model)(batch).loss, plain)


def test_the_gradient_of_a_batch_is_the_sum_of_those_of_its_rows():
    model, batch = make_model(), make_batch()
    _, whole = gradients(model, batch, router_balance_loss=1.0)
    parts = [batch.inputs.split(1), batch.targets.split(1), batch.weights.split(1)]
    rows = [Batch(inputs=i, targets=t, weights=w) for i, t, w in zip(*parts, strict=True)]
    parts = [gradients(model, row, router_balance_loss=1.0)[1] for row in rows]
    for total, *shares in zip(whole, *parts, strict=True):
        torch.testing.assert_close(total, sum(shares), atol=1e-4, rtol=1e-4)


def most_loaded(model, ids):
    """Return the share of all choices that the most loaded expert of a layer has."""
    with torch.no_grad():
        routing = model.hidden_states_and_routing(ids)[1]
    chosen = [experts.choose_experts(logits, 2)[1].flatten() for logits in routing]
    return max(c.bincount(minlength=4).max().item() / len(c) for c in chosen)


@pytest.mark.slow
def test_a_skewed_router_is_balanced_by_its_loss_and_not_without_it():
    loads, batch = {}, make_batch(16)
    for name, settings in (("with", {"router_balance_loss": 0.1}), ("without", WITHOUT)):
        model = make_model()
        model.blocks[0].ffn_norm.weight.data[0] = 5.0
        model.token_embedding.weight.data[:, 0] = 1.0
        for block in model.blocks:
            block.feed_forward.router.weight.data[:2, 0] += 1.0  # two experts get every token
        assert most_loaded(model, batch.inputs) == 0.5
        config = TrainingConfig(batch_size=16, learning_rate=1e-2, **settings)
        optimizer, compute = build_optimizer(model, config), loss_function(model, **settings)
        for _ in range(40):
            (compute(batch).loss / batch.weights.sum()).backward()
            optimizer.step()
            optimizer.zero_grad()
        loads[name] = most_loaded(model, batch.inputs)
    assert loads["with"] < 0.35
    assert loads["without"] > 0.4


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_with_experts_goes_on_bit_for_bit(config, make_trainer, optimizer):
    config = dataclasses.replace(config, optimizer=optimizer)
    model = dataclasses.replace(MODEL, use_shared_expert=True)
    whole = make_trainer(config, folder="whole", model=model)
    whole.fit()
    make_trainer(dataclasses.replace(config, max_steps=4), model=model).fit()
    resumed = make_trainer(config, model=model)
    resumed.fit()
    assert resumed.data.steps_read == [5, 6]
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name


@pytest.mark.slow
def test_with_the_grouped_product_model_and_loss_are_one_graph(monkeypatch):
    monkeypatch.setattr(experts, "has_grouped_product", lambda *_: True)
    model, batch = make_model(num_layers=1), make_batch()
    torch._dynamo.reset()
    compile_, options = torch.compile, {"backend": "eager", "fullgraph": True}
    monkeypatch.setattr(torch, "compile", lambda f, **o: compile_(f, **o, **options))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected, eager = gradients(model, batch)
        compiled, actual = gradients(model, batch, use_compile=True)
    torch.testing.assert_close(compiled, expected, atol=0, rtol=1e-2)
    for first, second in zip(eager, actual, strict=True):
        assert (first - second).norm() < 0.05 * first.norm()


@pytest.mark.slow
def test_one_by_one_other_choices_of_experts_compile_nothing_again(monkeypatch):
    model = make_model(num_layers=1)
    torch._dynamo.reset()
    from torch._dynamo.testing import CompileCounterWithBackend  # it takes a second

    compile_, counter = torch.compile, CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", lambda f, **o: compile_(f, **o, backend=counter))
    compute, eager, counts = loss_function(model, use_compile=True), loss_function(model), []
    for start in range(4):
        batch = make_batch()
        batch = dataclasses.replace(batch, inputs=(batch.inputs + start) % 32)
        torch.testing.assert_close(compute(batch).loss, eager(batch).loss)
        counts.append(counter.frame_count)
    assert 0 < counts[0] == counts[-1]
