"""Dropout acts at the places that the settings name, while training, and nowhere else."""

import dataclasses

import pytest
import torch
from torch import nn

from dimgpt.config import ModelConfig
from dimgpt.model.attention import attention, fastest_kernel, fused_attention
from dimgpt.model.transformer import Transformer

TOY = ModelConfig(
    vocab_size=40,
    context_length=16,
    window_size=4,
    embedding_dim=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    ffn_dim=48,
)
PLACES = ("embedding", "outputs", "qkv", "stream")
IDS = torch.arange(12)[None]


def build(*, is_training=True, **options):
    torch.manual_seed(0)
    return Transformer(dataclasses.replace(TOY, **options)).train(is_training)


def rates(model):
    return {name: part.p for name, part in model.named_modules() if isinstance(part, nn.Dropout)}


def test_each_place_has_its_own_layers():
    layers = {
        "embedding": {"dropout"},
        "outputs": {f"blocks.{block}.dropout" for block in (0, 1)},
        "qkv": {f"blocks.{block}.attention.dropout" for block in (0, 1)},
        "stream": {f"blocks.{block}.stream_dropout" for block in (0, 1)},
    }
    for place in PLACES:
        model = build(dropout=0.25, dropout_places=(place,))
        assert {name for name, rate in rates(model).items() if rate == 0.25} == layers[place]
        assert set(rates(model).values()) == {0.25}
    usual = rates(build(dropout=0.25))
    assert {name for name, rate in usual.items() if rate} == layers["embedding"] | layers["outputs"]


@pytest.mark.parametrize("place", PLACES)
def test_every_place_changes_the_training_and_not_the_evaluation(place):
    plain, dropping = build(), build(dropout=0.5, dropout_places=(place,))
    assert not torch.allclose(plain(IDS), dropping(IDS))
    assert torch.equal(plain.eval()(IDS), dropping.eval()(IDS))


def test_the_stream_is_dropped_where_attention_is_added_and_not_where_it_reads():
    block = build(dropout=0.5, dropout_places=("stream",)).blocks[0]
    read, rotation = [], (torch.ones(64, 4), torch.zeros(64, 4))
    block.attention_norm.register_forward_pre_hook(lambda part, inputs: read.append(inputs[0]))
    block.attention.output.weight.data.zero_()
    block.feed_forward.down.weight.data.zero_()
    x = torch.ones(1, 64, 32)
    kept, _ = block(x, x, rotation, None)
    assert torch.equal(read[0], x)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert (kept == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_queries_keys_and_values_are_dropped_each(monkeypatch):
    seen = []

    def spy(q, k, v, **options):
        seen.extend([q, k, v])
        return torch.zeros_like(q)

    monkeypatch.setattr("dimgpt.model.transformer.attention", spy)
    part = build(dropout=0.25, dropout_places=("qkv",), positions="sinusoidal").blocks[0].attention
    part(torch.randn(1, 200, 32), None, None)
    for heads in seen:
        assert (heads == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)


def values_seen(kernel, *, window_size, dropout, num_keys):
    """Return which keys each query mixed in, and how much: the values are unit vectors."""
    q, k = torch.zeros(64, num_keys, 4, num_keys), torch.zeros(64, num_keys, 2, num_keys)
    v = torch.eye(num_keys)[None, :, None].expand(64, -1, 2, -1)
    mixed = attention(q, k, v, window_size=window_size, kernel=kernel, dropout=dropout)
    return mixed.transpose(1, 2)  # (B, H, T, S)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["naive", "matmul", "sdpa"])
@pytest.mark.parametrize(("window_size", "num_keys"), [(None, 40), (9, 40), (9, 150)])
def test_a_kernel_hides_positions_and_scales_the_others(kernel, window_size, num_keys):
    torch.manual_seed(0)
    options = {"window_size": window_size, "num_keys": num_keys}
    whole = values_seen(kernel, dropout=0.0, **options)
    dropped = values_seen(kernel, dropout=0.2, **options)
    visible = whole > 0
    assert (dropped[~visible] == 0).all()
    assert (dropped[visible] == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    is_kept = dropped > 0
    torch.testing.assert_close(dropped[is_kept], whole[is_kept] / 0.8)
    torch.testing.assert_close(dropped.mean(dim=(0, 1)), whole.mean(dim=(0, 1)), atol=0.1, rtol=0.5)


def test_the_kernel_of_bf16_on_a_cpu_stays_with_dropout():
    assert fastest_kernel(torch.device("cpu"), torch.bfloat16, True) == "matmul"


@pytest.mark.parametrize("kernel", ["flex", "varlen"])
def test_a_kernel_without_dropout_is_refused_by_name(kernel):
    model = build(attention_dropout=0.2)
    for block in model.blocks:
        block.attention.kernel = kernel
    with pytest.raises(
        ValueError, match=rf"kernel is '{kernel}'.*attention_dropout is 0.2"
    ) as told:
        model(IDS)
    assert "choose auto, naive, matmul, sdpa, flash_attn" in str(told.value)
    assert "\n" not in str(told.value)


def test_on_a_card_the_kernel_without_dropout_gives_way(monkeypatch):
    monkeypatch.setattr(fused_attention, "HAS_FLASH_ATTN", False)
    monkeypatch.setattr(fused_attention, "supports_varlen", lambda device: True)
    card = torch.device("cuda")
    assert fastest_kernel(card, torch.bfloat16) == "varlen"
    assert fastest_kernel(card, torch.bfloat16, True) == "sdpa"
    monkeypatch.setattr(fused_attention, "HAS_FLASH_ATTN", True)
    assert fastest_kernel(card, torch.bfloat16, True) == "flash_attn"


def test_attention_dropout_changes_the_training_and_not_the_evaluation():
    plain, dropping = build(), build(attention_dropout=0.5)
    assert not torch.allclose(plain(IDS), dropping(IDS))
    assert torch.equal(plain.eval()(IDS), dropping.eval()(IDS))
    dropping.train()(IDS).sum().backward()
    assert all(weight.grad is not None for weight in dropping.parameters())


def test_with_a_cache_all_dropouts_are_off_in_evaluation():
    model = build(dropout=0.5, dropout_places=PLACES, attention_dropout=0.5, is_training=False)
    cache = model.new_cache(1)
    steps = [model(IDS[:, :5], cache), *(model(IDS[:, i : i + 1], cache) for i in range(5, 12))]
    torch.testing.assert_close(torch.cat(steps, dim=1), model(IDS))
