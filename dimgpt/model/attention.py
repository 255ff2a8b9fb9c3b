"""Causal attention in a window with grouped heads: one function, several kernels.

All kernels compute the same thing; `naive` is the definition, the tests compare the others with it.
The T queries are the last T of the S positions whose keys are given. Query head h reads key-value
head h // (H / H_kv). A window of W lets a query see itself and the W positions before it.

GQA: Ainslie et al. 2023, https://arxiv.org/abs/2305.13245. Window: Beltagy et al. 2020,
"Longformer", https://arxiv.org/abs/2004.05150.
"""

import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Kernel = Callable[[Tensor, Tensor, Tensor, int | None], Tensor]


def _find_varlen_options() -> dict[str, bool] | None:
    """Return what this torch's windowed FlashAttention wants besides; `None` if it has none."""
    if not importlib.util.find_spec("torch.nn.attention.varlen"):
        return None
    module: Any = importlib.import_module("torch.nn.attention.varlen")
    parameters = inspect.signature(module.varlen_attn).parameters
    if "window_size" not in parameters:
        return None
    return {"enable_gqa": True} if "enable_gqa" in parameters else {}


# Importing it takes more than a second, and builds of torch without CUDA do not have the kernel.
_VARLEN_OPTIONS = _find_varlen_options() if torch.backends.cuda.is_built() else None
_HAS_FLASH_ATTN = importlib.util.find_spec("flash_attn") is not None


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, window_size: int | None, kernel: str = "auto"
) -> Tensor:
    """Mix the values that each query may see.

    Args:
        q: Queries, (B, T, H, D).
        k: Keys, (B, S, H_kv, D), S >= T.
        v: Values, (B, S, H_kv, D).
        window_size: Positions seen besides the query's own; `None` sees all before it.
        kernel: One of `KERNELS`, or `auto` for the fastest that this device and dtype have.

    Returns:
        (B, T, H, D), in the dtype of `q`.

    Raises:
        ValueError: The kernel is unknown.
    """
    if window_size is not None and window_size >= k.shape[1] - 1:
        window_size = None  # the window covers all keys: the plain causal paths are faster
    name = fastest_kernel(q.device.type, q.dtype) if kernel == "auto" else kernel
    if name not in KERNELS:
        raise ValueError(f"attention kernel is {name!r}: choose auto, {', '.join(KERNELS)}")
    return KERNELS[name](q, k, v, window_size)


def fastest_kernel(device_type: str, dtype: torch.dtype) -> str:
    """Name the fastest kernel that runs on this device with this dtype."""
    if device_type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        if _HAS_FLASH_ATTN:
            return "flash_attn"
        if _VARLEN_OPTIONS is not None and torch.cuda.get_device_capability() >= (8, 0):
            return "varlen"
    if device_type == "cpu" and dtype == torch.bfloat16:
        return "matmul"  # torch's fused kernel is four times slower backward in bf16 there
    return "sdpa"


def visible(num_queries: int, num_keys: int, window_size: int | None, device: Any) -> Tensor:
    """Return the (T, S) mask that is true where a query may look."""
    query = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    key = torch.arange(num_keys, device=device)[None, :]
    mask = key <= query
    return mask if window_size is None else mask & (key >= query - window_size)


def _naive(q: Tensor, k: Tensor, v: Tensor, window_size: int | None) -> Tensor:
    groups = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
    scores = torch.einsum("bthd,bshd->bhts", q.float(), k.float()) / math.sqrt(q.shape[-1])
    mask = visible(q.shape[1], k.shape[1], window_size, q.device)
    weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)  # (B, H, T, S)
    return torch.einsum("bhts,bshd->bthd", weights, v.float()).type_as(q)


def _matmul(q: Tensor, k: Tensor, v: Tensor, window_size: int | None) -> Tensor:
    num_queries, num_kv_heads, groups = q.shape[1], k.shape[2], q.shape[2] // k.shape[2]
    # All query heads of a key-value head, one below the other: (B, H_kv, G, T, D) -> (B * H_kv, ..)
    rows = q.unflatten(2, (num_kv_heads, groups)).permute(0, 2, 3, 1, 4)
    rows = rows.reshape(-1, groups * num_queries, q.shape[-1])
    k, v = (x.transpose(1, 2).flatten(0, 1) for x in (k, v))  # (B * H_kv, S, D)
    mask = visible(num_queries, k.shape[1], window_size, q.device).repeat(groups, 1)
    bias = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -math.inf)
    scores = torch.baddbmm(bias, rows, k.transpose(1, 2), alpha=1 / math.sqrt(q.shape[-1]))
    mixed = torch.bmm(scores.softmax(dim=-1), v).view(-1, num_kv_heads, groups, *q.shape[1::2])
    return mixed.permute(0, 3, 1, 2, 4).flatten(2, 3)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, window_size: int | None) -> Tensor:
    num_queries, num_keys = q.shape[1], k.shape[1]
    if num_queries == 1 and window_size is not None:  # decoding: cut instead of masking
        k, v, window_size = k[:, -window_size - 1 :], v[:, -window_size - 1 :], None
    is_causal = window_size is None and num_queries == num_keys
    mask = None
    if not is_causal and num_queries > 1:
        mask = visible(num_queries, num_keys, window_size, q.device)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D)
    mixed = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=q.shape[1] != k.shape[1]
    )
    return mixed.transpose(1, 2)


def _flex(q: Tensor, k: Tensor, v: Tensor, window_size: int | None) -> Tensor:
    flex: Any = importlib.import_module("torch.nn.attention.flex_attention")
    offset = k.shape[1] - q.shape[1]

    def is_visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        position = query + offset
        mask = key <= position
        return mask if window_size is None else mask & (key >= position - window_size)

    blocks = flex.create_block_mask(is_visible, None, None, q.shape[1], k.shape[1], device=q.device)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D)
    mixed = flex.flex_attention(q, k, v, block_mask=blocks, enable_gqa=q.shape[1] != k.shape[1])
    return mixed.transpose(1, 2)


def _flash_attn(q: Tensor, k: Tensor, v: Tensor, window_size: int | None) -> Tensor:
    from flash_attn import flash_attn_func

    window = (-1, -1) if window_size is None else (window_size, 0)
    return flash_attn_func(q, k, v, causal=True, window_size=window)


def _varlen(q: Tensor, k: Tensor, v: Tensor, window_size: int | None) -> Tensor:
    varlen_attn: Any = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    options = _VARLEN_OPTIONS or {}
    if not options and q.shape[2] != k.shape[2]:  # torch 2.11 has no grouped heads
        groups = q.shape[2] // k.shape[2]
        k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)
    batch, num_queries, num_keys = q.shape[0], q.shape[1], k.shape[1]
    starts = torch.arange(batch + 1, dtype=torch.int32, device=q.device)
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))  # (B * T, H, D)
    window = (-1 if window_size is None else window_size, 0)
    mixed = varlen_attn(
        q,
        k,
        v,
        starts * num_queries,
        starts * num_keys,
        num_queries,
        num_keys,
        window_size=window,
        **options,
    )
    return mixed.unflatten(0, (batch, num_queries))


KERNELS: dict[str, Kernel] = {
    "naive": _naive,
    "matmul": _matmul,
    "sdpa": _sdpa,
    "flex": _flex,
    "varlen": _varlen,
    "flash_attn": _flash_attn,
}
