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
    "feed_forward": ("swiglu", "gelu", "relu2"),
    "num_experts": (None, 4),
    "qk_norm": (False, True),
    "attention_pattern": (("window",), ("window", "full")),
    "logit_cap": (None, 15.0),
    "use_stream_scalars": (False, True),
    "use_value_embeddings": (False, True),
    "use_biases": (False, True),
    "use_final_norm": (True, False),
    "tie_embeddings": (True, False),
}
CHANGES = [(name, value) for name, values in OPTIONS.items() for value in values[1:]]
# Every pair of choices of two options, with the first choice for all others: each model once.
PAIRS = [{}, *({name: value} for name, value in CHANGES)]
PAIRS += [dict(pair) for pair in itertools.combinations(CHANGES, 2) if pair[0][0] != pair[1][0]]
PAIRS.remove({"num_experts": 4, "use_biases": True})  # experts have no biases
MODERN = {
    "qk_norm": True,
    "attention_pattern": ("window", "full"),
    "feed_forward": "relu2",
    "logit_cap": 15.0,
    "use_stream_scalars": True,
    "use_value_embeddings": True,
    "tie_embeddings": False,
}


def build(**options):
    torch.manual_seed(0)
    return Transformer(dataclasses.replace(TOY, **options)).eval()


def shake(model):
    """Move every weight off its initial value, zeros and ones included."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("options", [*PAIRS, MODERN], ids=str)
def test_every_pair_of_parts_counts_its_parameters_moves_them_all_and_keeps_its_cache(options):
    model, ids = build(window_size=3, **options), torch.arange(12)[None]
    shake(model)
    assert model.num_parameters == num_parameters(model.config)
    logits = model(ids)
    logits.square().sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    cache = model.new_cache(1)
    steps = [model(ids[:, :5], cache), *(model(ids[:, i : i + 1], cache) for i in range(5, 12))]
    torch.testing.assert_close(torch.cat(steps, dim=1), logits)


@pytest.mark.parametrize("kernel", ["naive", "matmul", "sdpa"])
def test_every_kernel_computes_the_modern_parts_alike(kernel):
    models = []
    for name in (kernel, "naive"):
        torch.manual_seed(0)
        config = dataclasses.replace(TOY, window_size=3, **MODERN)
        models.append(Transformer(config, attention_kernel=name).eval())
        shake(models[-1])
    ids = torch.arange(12)[None]
    torch.testing.assert_close(models[0](ids), models[1](ids))


def test_normed_queries_and_keys_bound_the_scores():
    model = build(qk_norm=True)
    before = model(torch.arange(12)[None])
    with torch.no_grad():
        model.blocks[0].attention.query.weight.mul_(100)
        model.blocks[1].attention.key.weight.mul_(100)
    torch.testing.assert_close(model(torch.arange(12)[None]), before, atol=1e-4, rtol=1e-3)


def test_a_pattern_repeats_and_only_its_windows_hide_positions():
    config = dataclasses.replace(
        TOY, window_size=2, num_layers=5, attention_pattern=("window", "window", "full")
    )
    assert config.windows == (2, 2, None, 2, 2)
    ids = torch.arange(12)[None].clone()
    for pattern, reach in ((("window",), 4), (("window", "full"), 11)):
        model = build(window_size=2, attention_pattern=pattern)
        before = model(ids)[0, -1]
        changed = ids.clone()
        changed[0, 11 - reach] = 30
        assert not torch.equal(model(changed)[0, -1], before)
        changed[0, : 11 - reach] = 30
        changed[0, 11 - reach] = ids[0, 11 - reach]
        assert torch.equal(model(changed)[0, -1], before)


def test_new_scalars_values_and_zero_outputs_change_nothing_at_first():
    ids = torch.arange(12)[None]
    plain, with_parts = build(), build(use_stream_scalars=True, use_value_embeddings=True)
    assert torch.equal(plain(ids), with_parts(ids))
    model = build(scaled_outputs="zero", use_final_norm=False)
    embedding = model.token_embedding(ids)
    assert torch.equal(model.hidden_states(ids), embedding)


def test_every_second_layer_has_values_of_its_own_and_the_last_one_does():
    layers = [
        dataclasses.replace(TOY, num_layers=n, use_value_embeddings=True).value_embedding_layers
        for n in (1, 2, 5)
    ]
    assert layers == [(0,), (1,), (0, 2, 4)]


def test_capped_logits_keep_their_order_and_stay_below_the_cap():
    plain, capped = build(init_std=1.0), build(init_std=1.0, logit_cap=2.0)
    ids = torch.arange(12)[None]
    assert plain(ids).abs().max() > 2 > capped(ids).abs().max()
    torch.testing.assert_close(capped(ids), 2 * torch.tanh(plain(ids) / 2))


def test_in_half_precision_the_normed_queries_stay_in_it(monkeypatch):
    seen = []

    def spy(q, k, v, **options):
        seen.append({q.dtype, k.dtype, v.dtype})
        return q

    monkeypatch.setattr("dimgpt.model.transformer.attention", spy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        build(**MODERN)(torch.arange(12)[None])
    assert seen == [{torch.bfloat16}] * TOY.num_layers


def test_a_pattern_longer_than_the_layers_is_refused():
    with pytest.raises(ValueError, match=r"attention_pattern has 3 layers: it must have 1 to"):
        dataclasses.replace(TOY, attention_pattern=("window", "window", "full"))


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
