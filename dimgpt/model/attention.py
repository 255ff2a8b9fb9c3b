"""Causal attention in a window with grouped heads: one function, several kernels.

All kernels compute the same result; `naive` is the reference in the tests. The T queries are the
last T of the S positions whose keys are given. Query head h reads key-value head h // (H / H_kv).
With a window of W, a query attends to itself and the W positions before it.

GQA: Ainslie et al. 2023, https://arxiv.org/abs/2305.13245. Window: Beltagy et al. 2020,
"Longformer", https://arxiv.org/abs/2004.05150.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dimgpt.model import fused_attention
from dimgpt.model.positions import positions_in

Kernel = Callable[..., Tensor]
# Queries per SDPA call if a window hides some of the keys.
_BLOCK_LENGTH = 64


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window_size: int | None,
    kernel: str = "auto",
    dropout: float = 0.0,
    documents: Tensor | None = None,
) -> Tensor:
    """Compute causal attention.

    Args:
        q: Queries, (B, T, H, D).
        k: Keys, (B, S, H_kv, D), S >= T.
        v: Values, (B, S, H_kv, D).
        window_size: Positions visible before the query's own; `None` means all.
        kernel: One of `KERNELS`, or `auto` for the fastest that this device and dtype support.
        dropout: Probability, in 0..1, of dropping an attention weight; the others are scaled up.
        documents: Lengths of the documents of each row, int64 (B, D), with sum T = S: a query
            attends only inside its own. `None` takes a row as one document.

    Returns:
        (B, T, H, D), in the dtype of `q`.

    Raises:
        ValueError: The kernel is unknown, or does not support dropout.
    """
    if window_size is not None and window_size >= k.shape[1] - 1:
        window_size = None  # the window covers all keys; plain causal kernels are faster
    has_dropout = dropout > 0
    name = kernel
    if kernel == "auto":
        name = fastest_kernel(q.device, q.dtype, has_dropout, documents is not None)
    if name not in KERNELS:
        raise ValueError(f"attention kernel is {name!r}: choose auto, {', '.join(KERNELS)}")
    if has_dropout and name in _WITHOUT_DROPOUT:
        others = (other for other in KERNELS if other not in _WITHOUT_DROPOUT)
        raise ValueError(
            f"attention kernel is {name!r}: it has no dropout, and attention_dropout is {dropout}; "
            f"choose auto, {', '.join(others)}"
        )
    options: dict[str, Any] = {"dropout": dropout} if has_dropout else {}
    return KERNELS[name](q, k, v, window_size, documents=documents, **options)


def attend_to(q: Tensor, k: Tensor, v: Tensor, exist: Tensor) -> Tensor:
    """Compute attention of one new position per row, for cached rows of different lengths.

    Args:
        q: One query a row, (B, 1, H, D).
        k: Keys, (B, S, H_kv, D).
        v: Values, (B, S, H_kv, D).
        exist: Which keys belong to the row, bool (B, S).

    Returns:
        (B, 1, H, D).
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, 1, D)
    mask = exist[:, None, None]
    return _scaled_dot_product(q, k, v, mask=mask, dropout=0.0).transpose(1, 2)


def fastest_kernel(
    device: torch.device,
    dtype: torch.dtype,
    has_dropout: bool = False,
    has_documents: bool = False,
) -> str:
    """Return the fastest kernel for this device and dtype, with dropout if it is needed."""
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        if fused_attention.HAS_FLASH_ATTN:
            return "flash_attn"
        if not has_dropout and fused_attention.supports_varlen(device):
            return "varlen"
    if device.type == "cuda" and has_documents and not has_dropout:
        return "flex"
    if device.type == "cpu" and dtype == torch.bfloat16:
        return "matmul"  # torch's fused kernel is four times slower backward in bf16 there
    return "sdpa"


def visible(
    num_queries: int,
    num_keys: int,
    window_size: int | None,
    device: Any,
    documents: Tensor | None = None,
) -> Tensor:
    """Return the mask of visible keys, (T, S), with documents (B, 1, T, S)."""
    query = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    key = torch.arange(num_keys, device=device)[None, :]
    mask = key <= query
    if documents is not None:
        mask = mask & (key >= query - positions_in(documents, num_keys)[:, None, :, None])
    return mask if window_size is None else mask & (key >= query - window_size)


def _bias(q: Tensor, k: Tensor, window_size: int | None, documents: Tensor | None) -> Tensor:
    """Return the additive mask: 0 for visible keys, else minus infinity."""
    is_kept = documents is not None and not torch.compiler.is_compiling()
    make = _cached_bias if is_kept else _make_bias
    return make(q.shape[1], k.shape[1], window_size, q.device, q.dtype, documents)


def _make_bias(
    num_queries: int,
    num_keys: int,
    window_size: int | None,
    device: torch.device,
    dtype: torch.dtype,
    documents: Tensor | None,
) -> Tensor:
    mask = visible(num_queries, num_keys, window_size, device, documents)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, -math.inf)


# Layers with the same window share the bias of documents; tensors are compared by identity.
_cached_bias = functools.lru_cache(maxsize=2)(_make_bias)


def weigh(q: Tensor, k: Tensor, window_size: int | None, documents: Tensor | None = None) -> Tensor:
    """Return the attention weights, (B, H, T, S), float32; see `attention`."""
    k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
    scores = torch.einsum("bthd,bshd->bhts", q.float(), k.float()) / math.sqrt(q.shape[-1])
    mask = visible(q.shape[1], k.shape[1], window_size, q.device, documents)
    return scores.masked_fill(~mask, -math.inf).softmax(dim=-1)


def _naive(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window_size: int | None,
    dropout: float = 0.0,
    documents: Tensor | None = None,
) -> Tensor:
    weights = F.dropout(weigh(q, k, window_size, documents), dropout)
    v = v.repeat_interleave(q.shape[2] // v.shape[2], dim=2)
    return torch.einsum("bhts,bshd->bthd", weights, v.float()).type_as(q)


def _matmul(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window_size: int | None,
    dropout: float = 0.0,
    documents: Tensor | None = None,
) -> Tensor:
    num_queries, num_kv_heads, groups = q.shape[1], k.shape[2], q.shape[2] // k.shape[2]
    # Stack the query heads of each key-value head: (B, H_kv, G, T, D) -> (B * H_kv, G * T, D)
    rows = q.unflatten(2, (num_kv_heads, groups)).permute(0, 2, 3, 1, 4)
    rows = rows.reshape(-1, groups * num_queries, q.shape[-1])
    k, v = (x.transpose(1, 2).flatten(0, 1) for x in (k, v))  # (B * H_kv, S, D)
    bias = _bias(q, k, window_size, documents)
    if documents is None:
        bias = bias.repeat(groups, 1)
    else:
        bias = bias.expand(-1, q.shape[2], -1, -1).reshape(len(rows), -1, k.shape[1])
    scores = torch.baddbmm(bias, rows, k.transpose(1, 2), alpha=1 / math.sqrt(q.shape[-1]))
    mixed = torch.bmm(F.dropout(scores.softmax(dim=-1), dropout), v)
    mixed = mixed.view(-1, num_kv_heads, groups, *q.shape[1::2])
    return mixed.permute(0, 3, 1, 2, 4).flatten(2, 3)


def _sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window_size: int | None,
    dropout: float = 0.0,
    documents: Tensor | None = None,
) -> Tensor:
    num_queries, num_keys = q.shape[1], k.shape[1]
    bias = None if documents is None else _bias(q, k, window_size, documents)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D)
    if window_size is not None and num_queries == num_keys:
        num_before = math.ceil(window_size / _BLOCK_LENGTH)
        if num_keys > _BLOCK_LENGTH * (1 + num_before):  # blocks are less work than one large mask
            return _sdpa_in_blocks(q, k, v, window_size, num_before, dropout, bias).transpose(1, 2)
    is_causal = window_size is None and num_queries == num_keys and bias is None
    mask = bias
    sees_all = window_size is None and num_queries == 1
    if bias is None and not is_causal and not sees_all:
        mask = visible(num_queries, num_keys, window_size, q.device)
    mixed = _scaled_dot_product(q, k, v, mask=mask, dropout=dropout, is_causal=is_causal)
    return mixed.transpose(1, 2)


def _scaled_dot_product(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None,
    dropout: float,
    is_causal: bool = False,
) -> Tensor:
    num_groups = q.shape[1] // k.shape[1]
    if mask is not None and q.is_cuda and num_groups > 1:
        # On CUDA, groups with a mask would select the kernel that stores all scores.
        k, v = (x.repeat_interleave(num_groups, dim=1) for x in (k, v))
        num_groups = 1
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=is_causal,
        enable_gqa=num_groups > 1,
    )


def _sdpa_in_blocks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window_size: int,
    num_before: int,
    dropout: float,
    bias: Tensor | None,
) -> Tensor:
    """Attend in blocks of queries, each to its own block of keys and `num_before` others.

    Takes and returns (B, H, T, D); `bias`, for documents, is (B, 1, T, T). Tensors are split and
    concatenated, not sliced, because the gradient of a slice is as large as the sliced tensor.
    """
    q_blocks, k_blocks, v_blocks = (x.split(_BLOCK_LENGTH, dim=2) for x in (q, k, v))
    mixed = []
    for number, block in enumerate(q_blocks):
        first = max(0, number - num_before)
        in_sight = slice(first, number + 1)
        keys, values = (torch.cat(blocks[in_sight], dim=2) for blocks in (k_blocks, v_blocks))
        if bias is None:
            mask = visible(block.shape[2], keys.shape[2], window_size, block.device)
        else:
            begin, end = first * _BLOCK_LENGTH, number * _BLOCK_LENGTH + block.shape[2]
            mask = bias[:, :, number * _BLOCK_LENGTH : end, begin:end]
        mixed.append(_scaled_dot_product(block, keys, values, mask=mask, dropout=dropout))
    return torch.cat(mixed, dim=2)


KERNELS: dict[str, Kernel] = {
    "naive": _naive,
    "matmul": _matmul,
    "sdpa": _sdpa,
    "flex": fused_attention.flex,
    "varlen": fused_attention.varlen,
    "flash_attn": fused_attention.flash_attn,
}
_WITHOUT_DROPOUT = ("flex", "varlen")
