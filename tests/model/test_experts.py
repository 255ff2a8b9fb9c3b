"""Claims about feed-forwards of several experts, at toy sizes, against a naive definition."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dimgpt.config import ModelConfig
from dimgpt.model import experts
from dimgpt.model.experts import Experts, choose_experts, grouped_product, product_by_product
from dimgpt.model.feed_forward import FEED_FORWARDS
from dimgpt.model.flops import num_active_parameters, num_parameters, training_flops_per_token
from dimgpt.model.transformer import Transformer

TOY = ModelConfig(
    vocab_size=40,
    context_length=16,
    window_size=None,
    embedding_dim=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=4,
    ffn_dim=24,
    num_experts=4,
)


def toy(**options):
    return dataclasses.replace(TOY, **options)


def make_layer(**options):
    torch.manual_seed(0)
    layer = Experts(toy(**options))
    for weight in layer.parameters():
        nn.init.normal_(weight, std=0.3)
    return layer


def naive(layer, x):
    """Compute each token by itself, from the weights alone."""
    result = torch.zeros_like(x)
    act = {"swiglu": F.silu, "gelu": F.gelu, "relu2": lambda hidden: F.relu(hidden) ** 2}
    for token in range(len(x)):
        probabilities = (layer.router.weight @ x[token]).softmax(dim=0)
        chosen = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])
        chosen = chosen[: layer.experts_per_token]
        total = sum(probabilities[i] for i in chosen) if len(chosen) > 1 else 1
        for i in chosen:
            first = layer.up if layer.gate is None else layer.gate
            hidden = act[layer.kind](first.weight[i] @ x[token])
            if layer.gate is not None:
                hidden = hidden * (layer.up.weight[i] @ x[token])
            output = layer.down.weight[i] @ hidden
            result[token] = result[token] + probabilities[i] / total * output
    return result if layer.shared is None else result + layer.shared(x)


def values_and_gradients(compute, layer, x):
    y = compute(x)
    return [y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])]


@pytest.mark.parametrize("use_shared_expert", [False, True])
@pytest.mark.parametrize("experts_per_token", [1, 2, 4])
@pytest.mark.parametrize("feed_forward", ["swiglu", "gelu", "relu2"])
def test_values_and_gradients_are_those_of_the_definition(
    feed_forward, experts_per_token, use_shared_expert
):
    layer = make_layer(
        feed_forward=feed_forward,
        experts_per_token=experts_per_token,
        use_shared_expert=use_shared_expert,
    ).double()  # only the router rounds to float32
    x = torch.randn(11, 32, dtype=torch.float64, requires_grad=True)
    expected = values_and_gradients(lambda x: naive(layer, x), layer, x)
    actual = values_and_gradients(lambda x: layer(x[None])[0][0], layer, x)
    for value, definition in zip(actual, expected, strict=True):
        assert (value - definition).norm() < 1e-5 * definition.norm()


@pytest.mark.parametrize("counts", [(3, 0, 5), (0, 0, 8), (8, 0, 0)])
def test_the_grouped_product_is_that_of_each_expert_even_of_one_without_rows(counts):
    torch.manual_seed(0)
    ends = torch.tensor(counts).cumsum(0).int()
    rows = torch.randn(8, 32, requires_grad=True)
    weight = torch.randn(3, 24, 32, requires_grad=True)
    results = []
    for product in (grouped_product, product_by_product):
        y = product(rows, weight, ends)
        results.append([y, *torch.autograd.grad(y.square().sum(), [rows, weight])])
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_card_the_grouped_product_is_that_of_each_expert(monkeypatch):
    torch.manual_seed(0)
    layer = make_layer(use_shared_expert=True).cuda()
    x = torch.randn(2, 301, 32, device="cuda", requires_grad=True)
    results = []
    for is_grouped in (True, False):
        monkeypatch.setattr(experts, "has_grouped_product", lambda *_, is_it=is_grouped: is_it)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            results.append(values_and_gradients(lambda x: layer(x)[0], layer, x))
    for grouped, one_by_one in zip(*results, strict=True):
        assert (grouped - one_by_one).norm() < 0.02 * one_by_one.norm()


@pytest.mark.parametrize("feed_forward", ["swiglu", "gelu", "relu2"])
def test_a_single_expert_is_the_dense_layer(feed_forward):
    config = toy(feed_forward=feed_forward, num_experts=1, experts_per_token=1)
    layer, dense = Experts(config), FEED_FORWARDS[feed_forward](config)
    with torch.no_grad():
        for name, weight in dense.named_parameters():
            layer.get_parameter(name).copy_(weight[None])
    x = torch.randn(2, 5, 32)
    assert torch.equal(layer(x)[0], dense(x))


def test_two_experts_with_the_same_weights_are_the_dense_layer():
    config = toy(num_experts=2)
    layer, dense = Experts(config), FEED_FORWARDS["swiglu"](config)
    with torch.no_grad():
        for name, weight in dense.named_parameters():
            layer.get_parameter(name).copy_(weight.expand(2, -1, -1))
    x = torch.randn(2, 5, 32)
    torch.testing.assert_close(layer(x)[0], dense(x))


@pytest.mark.parametrize("experts_per_token", [1, 2])
def test_gradients_reach_every_expert_and_the_router(experts_per_token):
    torch.manual_seed(0)
    model = Transformer(toy(experts_per_token=experts_per_token, init_std=0.2))
    ids = torch.randint(40, (4, 16))
    F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
    for block in model.blocks:
        layer = block.feed_forward
        for stack in (layer.gate, layer.up, layer.down):
            assert (stack.weight.grad.abs().sum(dim=(1, 2)) > 0).all()
        assert (layer.router.weight.grad.abs().sum(dim=1) > 0).all()


def test_weights_of_several_experts_add_up_to_one_and_a_single_one_is_its_probability():
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    probabilities = logits.softmax(dim=-1)[0]
    weights, chosen = choose_experts(logits, 2)
    assert chosen.tolist() == [[1, 2]]
    torch.testing.assert_close(weights[0], logits[0, 1:].softmax(dim=0))
    weights, chosen = choose_experts(logits, 1)
    assert chosen.tolist() == [[1]]
    torch.testing.assert_close(weights[0, 0], probabilities[1])


def test_in_half_precision_the_router_still_chooses_in_float32():
    layer, x = make_layer(), torch.randn(1, 64, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, logits = layer(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(logits, F.linear(x, layer.router.weight))


@pytest.mark.parametrize("options", [{}, {"qk_norm": True, "use_value_embeddings": True}], ids=str)
def test_with_a_cache_the_logits_are_the_same(options):
    torch.manual_seed(0)
    config = toy(window_size=3, use_shared_expert=True, init_std=0.2, **options)
    model, ids = Transformer(config).eval(), torch.arange(12)[None]
    cache = model.new_cache(1)
    steps = [model(ids[:, :5], cache), *(model(ids[:, i : i + 1], cache) for i in range(5, 12))]
    torch.testing.assert_close(torch.cat(steps, dim=1), model(ids))


def test_the_routers_logits_come_with_the_hidden_states_of_a_model_with_experts_only():
    ids = torch.arange(12)[None]
    model = Transformer(TOY)
    hidden, routing = model.hidden_states_and_routing(ids)
    assert torch.equal(hidden, model.hidden_states(ids))
    assert [logits.shape for logits in routing] == [(1, 12, 4)] * 2
    assert Transformer(toy(num_experts=None)).hidden_states_and_routing(ids)[1] == []


def test_parameters_are_counted_in_total_and_active():
    dense = num_parameters(toy(num_experts=None))
    config = toy(num_experts=8, use_shared_expert=True)
    matrices, routers = 2 * 3 * 32 * 24, 2 * 8 * 32
    assert Transformer(config).num_parameters == num_parameters(config)
    assert num_parameters(config) == dense + 8 * matrices + routers
    assert num_active_parameters(config) == dense + 2 * matrices + routers
    assert num_active_parameters(toy(num_experts=None)) == dense


@pytest.mark.parametrize("feed_forward", ["swiglu", "gelu"])
def test_a_token_costs_what_a_dense_layer_of_the_width_of_its_experts_costs(feed_forward):
    parts = {"feed_forward": feed_forward, "experts_per_token": 3}
    config = toy(ffn_dim=16, num_experts=8, use_shared_expert=True, **parts)
    dense = training_flops_per_token(toy(ffn_dim=4 * 16, num_experts=None, **parts))
    assert training_flops_per_token(config) == dense + 6 * 2 * 8 * 32


@pytest.mark.parametrize(
    ("options", "std", "down"),
    [
        ({}, 0.02, 0.02),
        ({"init": "fan_in", "scaled_outputs": "both"}, 128**-0.5, 0.02 / 2),
        ({"scaled_outputs": "zero"}, 0.02, 0.0),
    ],
)
def test_experts_begin_as_dense_layers_do(options, std, down):
    size = {"embedding_dim": 128, "ffn_dim": 256, "use_shared_expert": True}
    layer = Transformer(toy(**size, **options)).blocks[0].feed_forward
    for weight in (*layer.up.weight, layer.shared.up.weight):
        assert weight.std().item() == pytest.approx(std, rel=0.05)
    for weight in (*layer.down.weight, layer.shared.down.weight):
        assert weight.std().item() == pytest.approx(down, rel=0.05)
    assert layer.router.weight.std().item() == pytest.approx(std, rel=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"experts_per_token": 5}, r"experts_per_token is 5: it must be at most num_experts \(4\)"),
        ({"num_experts": 0}, "num_experts is 0: it must be a positive whole number"),
        (
            {"num_experts": None, "use_shared_expert": True},
            "use_shared_expert is True and num_experts None: .* set num_experts, or leave it out",
        ),
        ({"use_biases": True}, "use_biases is True and num_experts 4: experts have no biases"),
    ],
    ids=str,
)
def test_settings_that_describe_no_experts_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        toy(**options)
