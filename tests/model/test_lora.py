"""Adapters add a product of two small matrices, and only they are trained."""

import pytest
import torch
import torch.nn.functional as F

from dimgpt.config import LoraConfig, ModelConfig
from dimgpt.model import feed_forward
from dimgpt.model.lora import (
    LoraLinear,
    adapter_tensors,
    add_adapters,
    base_tensors,
    merge_adapters,
    trained_share,
)
from dimgpt.model.transformer import Transformer

SHAPE = ModelConfig(
    vocab_size=32,
    context_length=16,
    window_size=8,
    embedding_dim=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    ffn_dim=24,
)
LORA = LoraConfig(rank=2, alpha=6.0)
IDS = torch.arange(24).view(2, 12)


def new_model(**changes):
    torch.manual_seed(0)
    return Transformer(ModelConfig(**{**vars_of(SHAPE), **changes})).eval()


def vars_of(config):
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def randomise(model):
    with torch.no_grad():
        for tensor in adapter_tensors(model).values():
            tensor.normal_(std=0.1)


def test_a_layer_computes_its_weight_plus_the_scaled_product_of_its_matrices():
    torch.manual_seed(0)
    plain = torch.nn.Linear(6, 5)
    layer = LoraLinear(plain, LORA)
    torch.nn.init.normal_(layer.lora_b)
    x = torch.randn(3, 6)
    weight = plain.weight + 6.0 / 2 * layer.lora_b @ layer.lora_a
    torch.testing.assert_close(layer(x), F.linear(x, weight, plain.bias))
    torch.testing.assert_close(layer.merged()(x), layer(x))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_biases": True, "feed_forward": "gelu", "norm": "layer", "positions": "sinusoidal"},
        {"num_experts": 2, "experts_per_token": 1, "use_shared_expert": True},
    ],
)
def test_a_model_begins_as_its_base_and_merges_into_a_plain_one(changes):
    model = new_model(**changes)
    before, names = model(IDS), model.state_dict().keys()
    add_adapters(model, LORA)
    assert torch.equal(model(IDS), before)
    assert base_tensors(model).keys() == names
    randomise(model)
    changed = model(IDS)
    assert not torch.allclose(changed, before, atol=1e-3)
    merge_adapters(model)
    assert model.state_dict().keys() == names
    assert not adapter_tensors(model)
    torch.testing.assert_close(model(IDS), changed, atol=1e-5, rtol=1e-5)


def test_only_the_targets_are_trained_and_counted():
    model = new_model()
    add_adapters(model, LoraConfig(rank=2, targets=("query", "down")))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[-2] for name in trained} == {"query", "down"}
    assert trained == adapter_tensors(model).keys()
    count = 2 * (2 * (16 + 16) + 2 * (24 + 16))
    assert model.num_trained_parameters == count
    assert trained_share(model).startswith(f"{count} of {model.num_parameters:,} (")


def test_dropout_hides_inputs_of_adapters_in_training_only():
    model = new_model()
    add_adapters(model, LoraConfig(rank=2, dropout=0.5))
    randomise(model)
    assert torch.equal(model(IDS), model(IDS))
    assert not torch.equal(model.train()(IDS), model(IDS))


def test_padding_for_speed_does_not_pass_over_adapters(monkeypatch):
    model = new_model()
    add_adapters(model, LoraConfig(rank=2, targets=("gate", "down")))
    randomise(model)
    before = model(IDS)
    monkeypatch.setattr(feed_forward, "width_multiple", lambda *_, **__: 64)
    torch.testing.assert_close(model(IDS), before)


def test_settings_without_a_rank_and_layers_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"lora.alpha is 4.0 and lora.rank 0: set lora.rank"):
        LoraConfig(alpha=4.0)
    with pytest.raises(ValueError, match="targets is gate: the model has no such linear layer"):
        add_adapters(new_model(feed_forward="gelu"), LoraConfig(rank=2, targets=("gate",)))
