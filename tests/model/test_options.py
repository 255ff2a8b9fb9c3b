"""Claims about the parts that a model can be put together from, at toy sizes."""

import dataclasses
import itertools
import math

import pytest
import torch

from dimgpt.config import ModelConfig
from dimgpt.model.flops import num_parameters
from dimgpt.model.transformer import Transformer

TOY = ModelConfig(
    vocab_size=40,
    context_length=16,
    window_size=None,
    embedding_dim=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=4,
    ffn_dim=48,
)
OPTIONS = {
    "norm": ("rms", "layer"),
    "positions": ("rotary", "sinusoidal"),
    "feed_forward": ("swiglu", "gelu"),
    "use_biases": (False, True),
    "use_final_norm": (True, False),
    "tie_embeddings": (True, False),
}
COMBINATIONS = [
    dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values())
]


def build(**options):
    torch.manual_seed(0)
    return Transformer(dataclasses.replace(TOY, **options)).eval()


def test_every_combination_counts_its_parameters_and_moves_them_all():
    for options in COMBINATIONS:
        model = build(**options)
        assert model.num_parameters == num_parameters(model.config)
        model(torch.arange(12)[None]).square().sum().backward()
        assert all(weight.grad is not None for weight in model.parameters()), options


@pytest.mark.parametrize("positions", OPTIONS["positions"])
def test_the_cache_changes_nothing(positions):
    model, ids = build(positions=positions, norm="layer", use_biases=True), torch.arange(12)[None]
    cache = model.new_cache(1)
    steps = [model(ids[:, :5], cache), *(model(ids[:, i : i + 1], cache) for i in range(5, 12))]
    torch.testing.assert_close(torch.cat(steps, dim=1), model(ids))


def test_sinusoidal_waves_are_sines_in_even_and_cosines_in_odd_channels():
    table = build(positions="sinusoidal").positions.table
    assert table.shape == (16, 32)
    assert table[3, 0].item() == pytest.approx(math.sin(3))
    assert table[3, 1].item() == pytest.approx(math.cos(3))
    assert table[5, 6].item() == pytest.approx(math.sin(5 / 10_000 ** (6 / 32)), abs=1e-6)


def test_without_positions_in_attention_the_order_still_counts():
    model = build(positions="sinusoidal")
    first, second = torch.tensor([[3, 4, 5]]), torch.tensor([[4, 3, 5]])
    assert not torch.allclose(model(first)[:, -1], model(second)[:, -1])


def test_an_untied_output_layer_is_a_matrix_of_its_own():
    model = build(tie_embeddings=False)
    before = model(torch.arange(4)[None])
    with torch.no_grad():
        model.output_weight.zero_()
    assert model(torch.arange(4)[None]).abs().max() == 0 != before.abs().max()


@pytest.mark.parametrize(
    ("init", "scaled_outputs", "query", "output", "down"),
    [
        ("fixed", "attention", 0.02, 0.02 / 2, 0.02),
        ("fixed", "none", 0.02, 0.02, 0.02),
        ("fan_in", "both", 512**-0.5, 0.02 / 2, 0.02 / 2),
    ],
)
def test_initial_weights_deviate_as_each_original_did(init, scaled_outputs, query, output, down):
    size = {"embedding_dim": 512, "num_heads": 4, "num_kv_heads": 4, "ffn_dim": 512}
    model = build(init=init, scaled_outputs=scaled_outputs, **size)
    block = model.blocks[0]
    for layer, expected in (
        (block.attention.query, query),
        (block.attention.output, output),
        (block.feed_forward.down, down),
    ):
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.02)


def test_an_option_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"norm is 'batch': it must be one of rms, layer"):
        dataclasses.replace(TOY, norm="batch")
