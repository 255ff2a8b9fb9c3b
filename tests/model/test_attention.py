"""Every kernel is the naive softmax, to the token."""

import itertools

import pytest
import torch

from dimgpt.model.attention import KERNELS, attention, fastest_kernel, visible

CPU_KERNELS = ("matmul", "sdpa", "flex")
SHAPES = [(7, 7), (3, 9), (1, 12), (12, 12)]  # queries, keys


def queries_keys_values(num_queries, num_keys, *, num_heads=4, num_kv_heads=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, num_queries, num_heads, 8), *[(2, num_keys, num_kv_heads, 8)] * 2]
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("kernel", CPU_KERNELS)
@pytest.mark.parametrize("window_size", [None, 1, 4, 100])
@pytest.mark.parametrize(("num_queries", "num_keys"), SHAPES)
def test_kernel_equals_the_naive_softmax(kernel, window_size, num_queries, num_keys):
    q, k, v = queries_keys_values(num_queries, num_keys)
    expected = attention(q, k, v, window_size=window_size, kernel="naive")
    actual = attention(q, k, v, window_size=window_size, kernel=kernel)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", ["matmul", "sdpa"])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_gradients_equal_those_of_the_naive_softmax(kernel, num_kv_heads):
    inputs = queries_keys_values(9, 9, num_kv_heads=num_kv_heads)
    inputs = [x.requires_grad_() for x in inputs]
    gradients = [
        torch.autograd.grad(attention(*inputs, window_size=3, kernel=name).square().sum(), inputs)
        for name in ("naive", kernel)
    ]
    for expected, actual in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kernel", ["matmul", "sdpa"])
def test_bf16_stays_near_float32(kernel):
    q, k, v = queries_keys_values(16, 16)
    expected = attention(q, k, v, window_size=5, kernel="naive")
    halves = (x.bfloat16() for x in (q, k, v))
    actual = attention(*halves, window_size=5, kernel=kernel)
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual.float(), expected, atol=3e-2, rtol=3e-2)


def test_a_window_of_w_sees_w_plus_1_keys():
    mask = visible(600, 600, 256, "cpu")
    assert mask.sum(dim=1).tolist() == [min(i + 1, 257) for i in range(600)]
    assert mask[599].nonzero().min() == 599 - 256


def test_query_head_h_reads_key_value_head_h_over_group_size():
    q, k, v = queries_keys_values(5, 5, num_heads=4, num_kv_heads=2)
    both = attention(q, k, v, window_size=None, kernel="naive")
    for head, kv_head in enumerate((0, 0, 1, 1)):
        one = (q[:, :, [head]], k[:, :, [kv_head]], v[:, :, [kv_head]])
        alone = attention(*one, window_size=None, kernel="naive")
        torch.testing.assert_close(both[:, :, [head]], alone)


def test_an_unknown_kernel_is_refused_by_name():
    q, k, v = queries_keys_values(2, 2)
    with pytest.raises(ValueError, match=r"attention kernel is 'warp': choose auto, naive"):
        attention(q, k, v, window_size=None, kernel="warp")


def test_the_fastest_kernel_of_a_cpu_needs_no_gpu():
    for dtype in (torch.float32, torch.bfloat16):
        assert fastest_kernel("cpu", dtype) in KERNELS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card here")
@pytest.mark.parametrize(
    ("kernel", "dtype"), list(itertools.product(["auto", "flex", "sdpa"], ["bfloat16", "float32"]))
)
def test_cuda_kernel_equals_the_naive_softmax(kernel, dtype):
    q, k, v = (
        torch.randn(2, 300, heads, 64, device="cuda", dtype=getattr(torch, dtype))
        for heads in (8, 2, 2)
    )
    expected = attention(q, k, v, window_size=64, kernel="naive")
    actual = attention(q, k, v, window_size=64, kernel=kernel)
    torch.testing.assert_close(actual, expected, atol=2e-2, rtol=2e-2)
