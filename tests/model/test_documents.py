"""Attention and positions stay inside each document of a row."""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from dimgpt.config import ModelConfig
from dimgpt.model import attention as module
from dimgpt.model import fused_attention
from dimgpt.model.attention import KERNELS, attention, fastest_kernel
from dimgpt.model.positions import positions_in
from dimgpt.model.transformer import Transformer

CPU_KERNELS = ("naive", "matmul", "sdpa", "flex")
LENGTHS = [[5, 11, 3, 1], [20, 0, 0, 0], [1, 1, 16, 2]]
DOCUMENTS = torch.tensor(LENGTHS)
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def bounds():
    """Row, first and last token of each document that is not empty."""
    for row, lengths in enumerate(LENGTHS):
        ends = torch.tensor(lengths).cumsum(0).tolist()
        yield from (
            (row, end - length, end) for end, length in zip(ends, lengths, strict=True) if length
        )


def queries_keys_values(num_kv_heads=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 20, heads, 8, generator=generator) for heads in (4, *[num_kv_heads] * 2)]


def one_by_one(q, k, v, window_size):
    mixed = torch.empty_like(q)
    for row, first, last in bounds():
        alone = (x[None, row, first:last] for x in (q, k, v))
        mixed[row, first:last] = attention(*alone, window_size=window_size, kernel="naive")[0]
    return mixed


@pytest.mark.slow
@pytest.mark.parametrize("kernel", CPU_KERNELS)
@pytest.mark.parametrize("window_size", [None, 1, 4])
@pytest.mark.parametrize("num_kv_heads", [1, 4])
def test_a_kernel_mixes_each_document_as_if_it_were_alone(kernel, window_size, num_kv_heads):
    q, k, v = queries_keys_values(num_kv_heads)
    actual = attention(q, k, v, window_size=window_size, kernel=kernel, documents=DOCUMENTS)
    expected = one_by_one(q, k, v, window_size)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_blocks_of_a_long_row_stay_inside_documents():
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 300, heads, 8, generator=generator) for heads in (4, 2, 2)]
    inputs = [x.requires_grad_() for x in inputs]
    documents = torch.tensor([[100, 0, 90, 110], [7, 63, 64, 166]])
    results = []
    for kernel in ("naive", "sdpa"):
        mixed = attention(*inputs, window_size=70, kernel=kernel, documents=documents)
        results.append([mixed, *torch.autograd.grad(mixed.square().sum(), inputs)])
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kernel", ["matmul", "sdpa"])
def test_no_gradient_crosses_a_border(kernel):
    inputs = [x.requires_grad_() for x in queries_keys_values()]
    both = (
        attention(*inputs, window_size=4, kernel=kernel, documents=DOCUMENTS),
        one_by_one(*inputs, 4),
    )
    actual, expected = (torch.autograd.grad(mixed.square().sum(), inputs) for mixed in both)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_a_document_without_attention_dropout_sees_all_of_itself_and_with_it_less():
    q, k, v = queries_keys_values()
    torch.manual_seed(0)
    dropped = attention(q, k, v, window_size=None, kernel="sdpa", dropout=0.5, documents=DOCUMENTS)
    assert not torch.allclose(dropped, one_by_one(q, k, v, None))
    assert dropped.isfinite().all()


def test_positions_restart_in_each_document():
    expected = [[*range(5), *range(11), *range(3), 0], [*range(20)], [0, 0, *range(16), 0, 1]]
    assert positions_in(DOCUMENTS, 20).tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize("kernel", CPU_KERNELS)
@pytest.mark.parametrize("positions", ["rotary", "sinusoidal"])
@pytest.mark.parametrize("window_size", [None, 6])
def test_a_packed_row_has_the_losses_of_its_documents_alone(kernel, positions, window_size):
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=50,
        context_length=20,
        window_size=window_size,
        embedding_dim=32,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        ffn_dim=48,
        positions=positions,
        attention_pattern=("window", "full"),
        init_std=0.3,
    )
    model, alone = (Transformer(config, attention_kernel=name) for name in (kernel, "naive"))
    alone.load_state_dict(model.state_dict())
    ids, targets = torch.randint(50, (2, 3, 20))
    with torch.no_grad():
        hidden, _ = model.hidden_states_and_routing(ids, documents=DOCUMENTS)
        losses = F.cross_entropy(model.logits(hidden).mT, targets, reduction="none")
        for row, first, last in bounds():
            logits = alone(ids[None, row, first:last])[0]
            expected = F.cross_entropy(logits, targets[row, first:last], reduction="none")
            torch.testing.assert_close(losses[row, first:last], expected, atol=1e-5, rtol=1e-5)


def test_one_mask_serves_all_layers_of_a_batch():
    q, k, v = queries_keys_values()
    module._cached_bias.cache_clear()
    for documents in (DOCUMENTS, DOCUMENTS.clone()):
        for _ in range(3):
            attention(q, k, v, window_size=4, kernel="sdpa", documents=documents)
    assert module._cached_bias.cache_info().misses == 2


@pytest.mark.parametrize("kernel", ["varlen", "flash_attn"])
@pytest.mark.parametrize("window_size", [None, 3])
def test_kernels_of_a_gpu_are_told_the_bounds_of_documents(monkeypatch, kernel, window_size):
    def attend(q, k, v, starts_q, starts_k, longest_q, longest_k, *, window_size, **options):
        assert starts_q.dtype == starts_k.dtype == torch.int32
        assert (longest_q, longest_k, len(starts_q)) == (20, 20, DOCUMENTS.numel() + 1)
        assert options.get("causal", True)
        left = window_size[0]
        mixed = torch.empty_like(q)
        for first, last in zip(starts_q[:-1], starts_q[1:], strict=True):
            if first < last:
                alone = (x[None, first:last] for x in (q, k, v))
                mixed[first:last] = KERNELS["naive"](*alone, None if left == -1 else left)[0]
        return mixed

    monkeypatch.setattr(fused_attention, "_varlen_attn", attend)
    monkeypatch.setattr(fused_attention, "_HAS_GROUPS", True)
    package = SimpleNamespace(flash_attn_func=None, flash_attn_varlen_func=attend)
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    q, k, v = queries_keys_values()
    actual = attention(q, k, v, window_size=window_size, kernel=kernel, documents=DOCUMENTS)
    torch.testing.assert_close(actual, one_by_one(q, k, v, window_size))


def test_a_card_without_flash_attention_takes_documents_with_flex(monkeypatch):
    monkeypatch.setattr(fused_attention, "HAS_FLASH_ATTN", False)
    monkeypatch.setattr(fused_attention, "supports_varlen", lambda device: False)
    card = torch.device("cuda")
    assert fastest_kernel(card, torch.float32, has_documents=True) == "flex"
    assert fastest_kernel(card, torch.float32) == "sdpa"
    assert fastest_kernel(card, torch.float16, True, True) == "sdpa"  # flex has no dropout
