"""Every kernel is the naive softmax, to the token."""

import itertools

import pytest
import torch

from dimgpt.model import fused_attention
from dimgpt.model.attention import KERNELS, attention, fastest_kernel, visible

CPU_KERNELS = ("matmul", "sdpa", "flex")
SHAPES = [(7, 7), (3, 9), (1, 12), (12, 12)]  # queries, keys


def queries_keys_values(num_queries, num_keys, *, num_heads=4, num_kv_heads=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, num_queries, num_heads, 8), *[(2, num_keys, num_kv_heads, 8)] * 2]
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("length", "window_size"), [(512, 1), (513, 127), (700, 128), (771, 129), (1100, 256)]
)
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_blocks_of_a_long_sequence_equal_the_naive_softmax(length, window_size, num_kv_heads):
    inputs = queries_keys_values(length, length, num_kv_heads=num_kv_heads)
    inputs = [x.requires_grad_() for x in inputs]
    results = []
    for kernel in ("naive", "sdpa"):
        mixed = attention(*inputs, window_size=window_size, kernel=kernel)
        results.append([mixed, *torch.autograd.grad(mixed.square().sum(), inputs)])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


class LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    """Remembers the most bytes that one operation has returned."""

    num_bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else [result]:
            if isinstance(x, torch.Tensor):
                self.num_bytes = max(self.num_bytes, x.nbytes)
        return result


@pytest.mark.slow
def test_no_tensor_of_windowed_attention_grows_with_the_square_of_the_length():
    largest = []
    for length in (1024, 2048):
        inputs = [x.requires_grad_() for x in queries_keys_values(length, length)]
        with LargestTensor() as watch:
            attention(*inputs, window_size=128, kernel="sdpa").sum().backward()
        largest.append(watch.num_bytes)
    assert largest[1] <= 2 * largest[0]


@pytest.mark.slow
def test_the_mask_of_flex_is_made_once():
    q, k, v = queries_keys_values(40, 40)
    fused_attention._cached_block_mask.cache_clear()
    for _ in range(3):
        attention(q, k, v, window_size=7, kernel="flex")
    assert fused_attention._cached_block_mask.cache_info().misses == 1


@pytest.mark.parametrize("has_groups", [True, False])
@pytest.mark.parametrize(("num_queries", "num_keys"), SHAPES)
@pytest.mark.parametrize("window_size", [None, 3])
def test_varlen_is_told_rows_window_and_groups(
    monkeypatch, has_groups, num_queries, num_keys, window_size
):
    def varlen_attn(q, k, v, starts_q, starts_k, longest_q, longest_k, *, window_size, **options):
        assert options == ({"enable_gqa": True} if has_groups else {})
        assert has_groups or q.shape[1] == k.shape[1]
        assert (longest_q, longest_k) == (num_queries, num_keys)
        assert starts_q.dtype == starts_k.dtype == torch.int32
        left, right = window_size
        assert right == 0
        rows = []
        for row in range(len(starts_q) - 1):
            cut_q, cut_k = (slice(x[row], x[row + 1]) for x in (starts_q, starts_k))
            rows.append(
                KERNELS["naive"](
                    q[None, cut_q], k[None, cut_k], v[None, cut_k], None if left == -1 else left
                )[0]
            )
        return torch.cat(rows)

    monkeypatch.setattr(fused_attention, "_varlen_attn", varlen_attn)
    monkeypatch.setattr(fused_attention, "_HAS_GROUPS", has_groups)
    q, k, v = queries_keys_values(num_queries, num_keys)
    expected = attention(q, k, v, window_size=window_size, kernel="naive")
    actual = attention(q, k, v, window_size=window_size, kernel="varlen")
    torch.testing.assert_close(actual, expected)


def test_flash_attn_names_its_package_where_it_is_missing():
    q, k, v = queries_keys_values(2, 2)
    if fused_attention.HAS_FLASH_ATTN:
        pytest.skip("flash-attn is installed")
    with pytest.raises(ImportError, match="pip install flash-attn"):
        attention(q, k, v, window_size=None, kernel="flash_attn")


@pytest.mark.parametrize("is_right", [True, False])
def test_a_newer_flash_attention_is_kept_only_if_it_gives_the_same(monkeypatch, caplog, is_right):
    calls = []
    fakes = {
        "activate_flash_attention_impl": calls.append,
        "restore_flash_attention_impl": lambda: calls.append("restored"),
        "list_flash_attention_impls": lambda: ["FA3"],
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.nn.attention, name, fake, raising=False)
    monkeypatch.setattr(fused_attention, "supports_varlen", lambda device: True)
    monkeypatch.setattr(fused_attention, "_is_installed", lambda module: True)
    results = iter([torch.zeros(3), torch.zeros(3) if is_right else torch.ones(3)])
    monkeypatch.setattr(fused_attention, "_try_kernel", lambda device: [next(results)])
    chosen = fused_attention.activate_newest_flash_attention(torch.device("cuda"))
    assert chosen == ("FA3" if is_right else None)
    assert calls == (["FA3"] if is_right else ["FA3", "restored"])
    assert ("FA3 fails here" in caplog.text) == (not is_right)


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
        assert fastest_kernel(torch.device("cpu"), dtype) in KERNELS


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
