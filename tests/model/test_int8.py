"""Weights of 8 bits change what a model says by less than a reader would see."""

import pytest
import torch
import torch.nn.functional as F

from dimgpt.config import ModelConfig, SamplingConfig
from dimgpt.generation import compiled_step
from dimgpt.generation.generator import generate_batch
from dimgpt.model.int8 import Int8Linear, round_to_int8
from dimgpt.model.transformer import Transformer
from dimgpt.text.special_tokens import SpecialTokens

SHAPE = ModelConfig(
    vocab_size=64,
    context_length=24,
    window_size=12,
    embedding_dim=32,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    ffn_dim=43,
)


def trained(**changes):
    """Return a model that has learned some sequences by heart, and the sequences."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**{**vars_of(SHAPE), **changes}))
    ids = torch.randint(20, 64, (8, 24))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = loss_of(model, ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), ids


def vars_of(config):
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def loss_of(model, ids):
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


@pytest.mark.parametrize("num_inputs", [16, 21, 43, 341])
@pytest.mark.parametrize("num_rows", [1, 3, 8, 9, 40])
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_product_is_that_of_the_matrix_but_for_rounding(num_inputs, num_rows, has_bias):
    torch.manual_seed(0)
    weight, bias = torch.randn(50, num_inputs), torch.randn(50) if has_bias else None
    x = torch.randn(2, num_rows, num_inputs)[:1]
    expected = F.linear(x, weight, bias)
    found = Int8Linear(weight, bias)(x)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.015 * expected.norm()


def test_a_row_of_zeros_stays_zero():
    assert Int8Linear(torch.zeros(3, 16), None)(torch.randn(1, 16)).tolist() == [[0, 0, 0]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_embeddings": False, "qk_norm": True, "logit_cap": 30.0},
        {"use_biases": True, "feed_forward": "gelu"},
        {"num_experts": 4, "experts_per_token": 2},
    ],
)
def test_the_perplexity_changes_by_less_than_a_thousandth(changes):
    model, ids = trained(**changes)
    before = loss_of(model, ids)
    round_to_int8(model)
    after = loss_of(model, ids)
    assert before < 3
    assert after != before
    assert abs((after - before).exp() - 1) < 1e-3


@pytest.mark.slow
def test_a_product_is_compiled_to_the_same():
    layer, x = Int8Linear(torch.randn(50, 21), None), torch.randn(1, 1, 21)
    torch.testing.assert_close(torch.compile(layer)(x), layer(x))


@pytest.mark.slow
@pytest.mark.parametrize("use_compile", [False, True])
def test_texts_are_written_as_without_a_cache(use_compile, monkeypatch):
    # To trace the step shows what it cannot compile; to compile its kernels takes 15 s.
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda step, **_: compile_(step, backend="eager"))
    compiled_step._compiled.cache_clear()
    model, ids = trained()
    round_to_int8(model)
    config = SamplingConfig(temperature=0.0, max_new_tokens=6, use_compile=use_compile)
    prompts = [row[: 4 + number].tolist() for number, row in enumerate(ids)]
    found = generate_batch(model, prompts, config, special_tokens=SpecialTokens())
    compiled_step._compiled.cache_clear()
    assert found == [row[4 + number : 10 + number].tolist() for number, row in enumerate(ids)]


def test_a_gpu_is_refused():
    with torch.device("meta"):
        model = Transformer(SHAPE)
    with pytest.raises(ValueError, match="use_int8 is for CPUs, and the model is on meta"):
        round_to_int8(model)
