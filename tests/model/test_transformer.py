"""Claims about the architecture, at toy sizes."""

import dataclasses
import math

import pytest
import torch

from dimgpt.config import ModelConfig
from dimgpt.model.flops import num_parameters, training_flops_per_token
from dimgpt.model.positions import apply_rope, rope_table
from dimgpt.model.transformer import RMSNorm, Transformer

TOY = ModelConfig(
    vocab_size=50,
    context_length=24,
    window_size=6,
    embedding_dim=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    ffn_dim=40,
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Transformer(TOY).eval()


def ids(batch_size=2, length=24, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(TOY.vocab_size, (batch_size, length), generator=generator)


def test_the_published_model_has_208_929_792_parameters():
    with torch.device("meta"):
        model = Transformer(ModelConfig())
    assert model.num_parameters == num_parameters(ModelConfig()) == 208_929_792


def test_a_token_of_the_published_model_costs_1_2913_gigaflops():
    assert training_flops_per_token(ModelConfig()) == pytest.approx(1.2913e9, rel=1e-4)


def test_future_tokens_do_not_change_past_logits(model):
    first, second = ids(), ids()
    second[:, 12:] = (second[:, 12:] + 1) % TOY.vocab_size
    torch.testing.assert_close(model(first)[:, :12], model(second)[:, :12])


def test_information_travels_exactly_one_window_per_layer(model):
    first, second = ids(), ids()
    second[:, 2] = (second[:, 2] + 1) % TOY.vocab_size
    changed = (model(first) - model(second)).abs().amax(dim=(0, 2)) > 1e-6
    last = 2 + TOY.num_layers * TOY.window_size
    assert changed.tolist() == [2 <= position <= last for position in range(24)]


@pytest.mark.parametrize("pieces", [[24], [1] * 24, [5, 1, 1, 10, 7], [23, 1]])
def test_cache_equals_no_cache(model, pieces):
    sequence = ids()
    cache = model.new_cache(2)
    logits = [model(piece, cache) for piece in sequence.split(pieces, dim=1)]
    assert cache.length == 24
    torch.testing.assert_close(torch.cat(logits, dim=1), model(sequence), atol=1e-5, rtol=1e-5)


def test_a_sequence_longer_than_the_context_is_refused(model):
    with pytest.raises(ValueError, match="has 25 positions: context_length is 24"):
        model(ids(length=25))
    cache = model.new_cache(2)
    model(ids(length=20), cache)
    with pytest.raises(ValueError, match="has 25 positions"):
        model(ids(length=5), cache)


def test_the_output_layer_is_the_embedding(model):
    names = [name for name in model.state_dict() if "embedding" in name or "linear" in name]
    assert names == ["token_embedding.weight"]
    hidden = model.hidden_states(ids())
    torch.testing.assert_close(model(ids()), hidden @ model.token_embedding.weight.T)


@torch.no_grad()
def test_initial_weights_have_the_published_deviations():
    wide = Transformer(dataclasses.replace(TOY, embedding_dim=256, num_layers=8))
    block = wide.blocks[3]
    assert block.attention.query.weight.std() == pytest.approx(0.02, rel=0.05)
    assert block.feed_forward.down.weight.std() == pytest.approx(0.02, rel=0.05)
    assert block.attention.output.weight.std() == pytest.approx(0.02 / 4, rel=0.05)
    assert torch.equal(block.ffn_norm.weight, torch.ones(256))


def test_rope_keeps_lengths_and_depends_on_distance_only():
    cos, sin = rope_table(torch.arange(40.0), 8, 10_000.0)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    turned = [[apply_rope(x, cos[i : i + 1], sin[i : i + 1]) for i in range(40)] for x in (q, k)]
    assert torch.allclose(turned[0][30].norm(), q.norm())
    products = [(turned[0][i] * turned[1][i - 5]).sum() for i in (5, 17, 39)]
    torch.testing.assert_close(torch.stack(products), products[0].expand(3), atol=1e-5, rtol=1e-5)


def test_rope_turns_neighbouring_channels():
    cos, sin = rope_table(torch.arange(4.0), 4, 10_000.0)
    x = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 4)
    expected = [math.cos(1.0), math.sin(1.0), 0.0, 0.0]
    assert apply_rope(x, cos[1:2], sin[1:2]).flatten().tolist() == pytest.approx(expected)


def test_norm_is_computed_in_float32():
    norm = RMSNorm(4, eps=1e-5)
    tiny = torch.tensor([[1e-3, 2e-3, -1e-3, 0.0]]).bfloat16()
    expected = tiny.float() / (tiny.float().square().mean() + 1e-5).sqrt()
    torch.testing.assert_close(norm.bfloat16()(tiny), expected.bfloat16())


def test_a_config_names_the_field_the_value_and_the_remedy():
    with pytest.raises(ValueError, match="num_kv_heads is 3: it must divide num_heads"):
        ModelConfig(num_heads=4, num_kv_heads=3)
    with pytest.raises(ValueError, match="embedding_dim is 100: .* change embedding_dim"):
        ModelConfig(embedding_dim=100)
