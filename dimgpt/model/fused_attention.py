"""Attention kernels that never store all scores: FlexAttention and several FlashAttentions.

They compute what `attention.py` defines and take its arguments; `attention.py` chooses one.
Importing this file loads none of them.

torch contains version 2 of FlashAttention. Versions 3 (Hopper) and 4 are packages that torch can
call instead; that choice applies to all models of the process.
"""

import functools
import importlib
import importlib.util
import inspect
import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dimgpt.model.positions import positions_in

logger = logging.getLogger(__name__)
# torch's name of a version, and the module that it needs; the fastest first.
_FLASH_VERSIONS = (("FA4", "flash_attn.cute"), ("FA3", "flash_attn_interface"))


def _load_varlen() -> Any:
    """Return torch's windowed FlashAttention, or `None`.

    Importing it takes more than a second, and builds of torch without CUDA have no such kernel.
    """
    has_module = importlib.util.find_spec("torch.nn.attention.varlen") is not None
    if not (has_module and torch.backends.cuda.is_built()):
        return None
    varlen_attn = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    return varlen_attn if "window_size" in inspect.signature(varlen_attn).parameters else None


_varlen_attn = _load_varlen()
# torch 2.11 has the window, but no grouped heads.
_HAS_GROUPS = bool(_varlen_attn) and "enable_gqa" in inspect.signature(_varlen_attn).parameters
# The package's compiled module; other packages may also install a folder `flash_attn`.
HAS_FLASH_ATTN = importlib.util.find_spec("flash_attn_2_cuda") is not None


def supports_varlen(device: torch.device) -> bool:
    """Return whether torch's FlashAttention runs on this GPU: it needs Ampere or newer."""
    # The other ways to ask break the graph of compiled code.
    return _varlen_attn is not None and torch.cuda.get_device_properties(device).major >= 8


def varlen(
    q: Tensor, k: Tensor, v: Tensor, window_size: int | None, documents: Tensor | None = None
) -> Tensor:
    """Compute FlashAttention through torch's function for sequences of any length."""
    options: dict[str, Any] = {}
    if q.shape[2] != k.shape[2]:
        if _HAS_GROUPS:
            options["enable_gqa"] = True
        else:
            k, v = (x.repeat_interleave(q.shape[2] // k.shape[2], dim=2) for x in (k, v))
    batch, num_queries, num_keys = q.shape[0], q.shape[1], k.shape[1]
    if documents is None:
        starts = torch.arange(batch + 1, dtype=torch.int32, device=q.device)
        bounds = (starts * num_queries, starts * num_keys)
    else:
        bounds = (_bounds(documents),) * 2
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))  # (B * T, H, D)
    lengths = (*bounds, num_queries, num_keys)
    window = (-1 if window_size is None else window_size, 0)
    mixed = _varlen_attn(q, k, v, *lengths, window_size=window, **options)
    return mixed.unflatten(0, (batch, num_queries))


def _bounds(documents: Tensor) -> Tensor:
    """Return where each document begins, and the end, int32 (B * D + 1,); some may be empty."""
    return F.pad(documents.flatten().cumsum(0), (1, 0)).int()


def flash_attn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window_size: int | None,
    dropout: float = 0.0,
    documents: Tensor | None = None,
) -> Tensor:
    """Compute FlashAttention through the package of that name.

    Raises:
        ImportError: It is not installed.
    """
    try:
        from flash_attn import flash_attn_func, flash_attn_varlen_func
    except ImportError as error:
        raise ImportError(
            "attention kernel is 'flash_attn': pip install flash-attn, or choose another"
        ) from error
    window = (-1, -1) if window_size is None else (window_size, 0)
    options = {"dropout_p": dropout, "causal": True, "window_size": window}
    if documents is None:
        return flash_attn_func(q, k, v, **options)
    bounds, longest = _bounds(documents), q.shape[1]
    flat = (x.flatten(0, 1) for x in (q, k, v))  # (B * T, H, D)
    mixed = flash_attn_varlen_func(*flat, bounds, bounds, longest, longest, **options)
    return mixed.view(q.shape)


def flex(
    q: Tensor, k: Tensor, v: Tensor, window_size: int | None, documents: Tensor | None = None
) -> Tensor:
    """Compute FlexAttention; it skips blocks that no query sees."""
    from torch.nn.attention.flex_attention import flex_attention

    num_queries, num_keys = q.shape[1], k.shape[1]
    attend: Callable[..., Any] = flex_attention
    make_mask: Callable[..., Any] = _cached_block_mask
    if torch.compiler.is_compiling():
        make_mask = _block_mask
    elif q.is_cuda:  # the uncompiled function would store all the scores
        attend = _compiled_flex_attention()
    mask = make_mask(num_queries, num_keys, window_size, q.device, documents)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D)
    mixed = attend(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1])
    return mixed.transpose(1, 2)


def _block_mask(
    num_queries: int,
    num_keys: int,
    window_size: int | None,
    device: torch.device,
    documents: Tensor | None = None,
) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    offset = num_keys - num_queries
    batch_size = None if documents is None else len(documents)
    places = None if documents is None else positions_in(documents, num_keys)

    def is_visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        position = query + offset
        mask = key <= position
        if places is not None:
            mask = mask & (key >= position - places[batch, query])
        return mask if window_size is None else mask & (key >= position - window_size)

    return create_block_mask(is_visible, batch_size, None, num_queries, num_keys, device=device)


# All layers share one mask, and without documents all steps do; the cache compares tensors by
# identity. A compiled model keeps its own mask in its graph.
_cached_block_mask = functools.lru_cache(maxsize=16)(_block_mask)


@functools.cache
def _compiled_flex_attention() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def activate_newest_flash_attention(device: torch.device) -> str | None:
    """Let torch use the newest FlashAttention that gives the same results; return its name.

    A version that fails, or gives other values or gradients, is skipped with a warning. Call this
    before the model is compiled.
    """
    attention: Any = torch.nn.attention
    is_there = hasattr(attention, "activate_flash_attention_impl")
    if not (is_there and device.type == "cuda" and supports_varlen(device)):
        return None
    known = attention.list_flash_attention_impls()
    names = [name for name, module in _FLASH_VERSIONS if _is_installed(module) and name in known]
    expected = _try_kernel(device) if names else []
    for name in names:
        try:
            attention.activate_flash_attention_impl(name)
            for ours, theirs in zip(expected, _try_kernel(device), strict=True):
                torch.testing.assert_close(theirs, ours, atol=3e-2, rtol=3e-2)
        except Exception as error:
            attention.restore_flash_attention_impl()
            logger.warning("%s fails here, torch's own FlashAttention is used: %s", name, error)
        else:
            return name
    return None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


def _try_kernel(device: torch.device) -> list[Tensor]:
    """Return values and gradients of windowed attention with grouped heads."""
    generator = torch.Generator(device).manual_seed(0)
    q, k, v = (
        torch.randn(2, 192, heads, 64, generator=generator, device=device, dtype=torch.bfloat16)
        for heads in (4, 2, 2)
    )
    inputs = tuple(x.requires_grad_() for x in (q, k, v))
    mixed = varlen(q, k, v, 64)
    return [mixed.detach(), *torch.autograd.grad(mixed.float().square().sum(), inputs)]
