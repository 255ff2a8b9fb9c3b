from dataclasses import replace

import pytest
import torch

from dimgpt.config import ModelConfig
from dimgpt.model.positions import apply_rope, rope_table
from dimgpt.model.transformer import Transformer

TOY = ModelConfig(
    vocab_size=60,
    context_length=16,
    window_size=5,
    embedding_dim=16,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    ffn_dim=24,
    init_std=0.3,
)
IDS = torch.randint(60, (2, 50), generator=torch.Generator().manual_seed(1))


def model_of(config, kernel="auto"):
    torch.manual_seed(0)
    return Transformer(config, attention_kernel=kernel).eval()


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("kernel", ["naive", "sdpa", "matmul"])
@pytest.mark.parametrize("pieces", [[1] * 50, [16, *[1] * 34], [3, 1, 9, 6, 1, 5, 16, 9], [40, 10]])
def test_a_cache_that_runs_on_gives_the_logits_of_a_longer_context(pieces, kernel):
    model = model_of(TOY, kernel)
    cache = model.new_cache(2, runs_on=True)
    logits = [model(piece, cache) for piece in IDS.split(pieces, dim=1)]
    expected = model_of(replace(TOY, context_length=50))(IDS)
    torch.testing.assert_close(torch.cat(logits, dim=1), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_rows_that_have_read_different_numbers_of_positions_go_on_together():
    model = model_of(TOY)
    together = model.new_cache(3, runs_on=True)
    alone = [model.new_cache(1, runs_on=True) for _ in range(3)]
    ids = torch.cat((IDS, IDS[:1].flip(1)))
    for row, length in enumerate((2, 16, 7)):
        rows = together.rows(row, row + 1)
        for cache in (rows, alone[row]):
            model(ids[row : row + 1, :length], cache)
        together.lengths[row] = rows.length
    assert together.lengths == [2, 16, 7]
    for at in range(20, 50):  # every row passes its window, and two of them the context
        logits = model(ids[:, at : at + 1], together)
        for row, cache in enumerate(alone):
            expected = model(ids[row : row + 1, at : at + 1], cache)
            torch.testing.assert_close(logits[row : row + 1], expected, atol=1e-5, rtol=1e-5)
        if at == 30:  # the last row takes the place of the first, as where a text has ended
            together.move(2, 0)
            alone[0], ids = alone[2], torch.cat((ids[2:], ids[1:2], ids[2:]))
            together, alone = together.rows(0, 2), alone[:2]
            ids = ids[:2]


def test_positions_far_beyond_the_context_depend_on_distance_as_near_ones_do():
    q, k = torch.randn(2, 1, 1, 1, TOY.head_dim)
    products = []
    for first in (0, 3_000_000):
        places = torch.arange(first, first + 8, dtype=torch.float64)
        cos, sin = rope_table(places, TOY.head_dim, TOY.rope_theta)
        turned = apply_rope(q, cos[7:], sin[7:]), apply_rope(k, cos[2:3], sin[2:3])
        products.append((turned[0] * turned[1]).sum())
    torch.testing.assert_close(products[0], products[1], atol=1e-5, rtol=1e-5)


def num_slots(cache):
    return [ring.shape[2] for ring in cache._layers]


def test_a_layer_keeps_its_window_and_a_full_one_the_context():
    assert num_slots(model_of(TOY).new_cache(1)) == [6, 6, 6]
    mixed = replace(TOY, attention_pattern=("window", "full"))
    assert num_slots(model_of(mixed).new_cache(1)) == [6, 16, 6]
    wide = replace(TOY, window_size=40)
    assert num_slots(model_of(wide).new_cache(1)) == [16, 16, 16]


@pytest.mark.parametrize(
    "change",
    [
        {"window_size": None},
        {"window_size": 16},
        {"attention_pattern": ("window", "full")},
        {"positions": "sinusoidal"},
    ],
    ids=str,
)
def test_a_model_that_cannot_run_on_says_so(change):
    model = model_of(replace(TOY, **change))
    with pytest.raises(ValueError, match="beyond_context is 'run_on': .* use 'crop'"):
        model.new_cache(1, runs_on=True)


@torch.no_grad()
@pytest.mark.parametrize(("num_read", "num_kept"), [(6, 2), (5, 0), (30, 29), (30, 30)])
def test_what_a_cache_forgets_can_be_read_again(num_read, num_kept):
    model = model_of(TOY)
    cache = model.new_cache(2, runs_on=True)
    model(IDS[:, :num_read], cache)
    assert cache.keep(num_kept)
    assert cache.length == num_kept
    logits = [model(IDS[:, at : at + 1], cache) for at in range(num_kept, 40)]
    expected = model(IDS[:, :40], model.new_cache(2, runs_on=True))[:, num_kept:]
    torch.testing.assert_close(torch.cat(logits, dim=1), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("num_read", [7, 30])
def test_a_ring_does_not_go_back_to_what_it_has_replaced(num_read):
    model = model_of(TOY)
    cache = model.new_cache(2, runs_on=True)
    model(IDS[:, :num_read], cache)
    assert not cache.keep(num_read - 2)
    assert cache.length == num_read
