"""Which version of FlashAttention torch calls: a newer one, where it is installed and right.

torch brings version 2. Versions 3 (Hopper) and 4 are packages that it can call instead; the choice
is torch's own and holds for the whole process.
"""

import importlib.util
import logging
from typing import Any

import torch
from torch import Tensor
from torch.nn import attention as torch_attention

from dimgpt.model import fused_attention

logger = logging.getLogger(__name__)
# torch's name of a version, and the module that it is made of; the fastest first.
_VERSIONS = (("FA4", "flash_attn.cute"), ("FA3", "flash_attn_interface"))


def activate_newest_flash_attention(device: torch.device) -> str | None:
    """Let torch call the newest version that computes what its own does; return its name.

    A version that fails, or gives other values or gradients, is put aside with a warning. Call it
    before the model is compiled.
    """
    attention: Any = torch_attention
    is_there = hasattr(attention, "activate_flash_attention_impl")
    if not (is_there and device.type == "cuda" and fused_attention.supports_varlen(device)):
        return None
    expected: list[Tensor] | None = None
    for name, module in _VERSIONS:
        if not (_is_installed(module) and name in attention.list_flash_attention_impls()):
            continue
        expected = expected or _try_kernel(device)
        try:
            attention.activate_flash_attention_impl(name)
            for ours, theirs in zip(expected, _try_kernel(device), strict=True):
                torch.testing.assert_close(theirs, ours, atol=3e-2, rtol=3e-2)
        except Exception as error:
            attention.restore_flash_attention_impl()
            logger.warning("torch's FlashAttention stays: %s does not work here: %s", name, error)
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
    mixed = fused_attention.varlen(q, k, v, 64)
    return [mixed.detach(), *torch.autograd.grad(mixed.float().square().sum(), inputs)]
