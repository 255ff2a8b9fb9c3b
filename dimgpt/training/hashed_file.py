"""Tensors to a safetensors file, and their SHA-256 in the same pass.

The library's own writer does not say what it wrote, and a second reading of gigabytes takes as long
as the writing. Reading is the library's.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, header: Mapping[str, str] | None = None
) -> str:
    """Write contiguous tensors of the CPU, and return the SHA-256 of the file.

    The format: https://github.com/huggingface/safetensors#format

    Args:
        path: The file.
        tensors: By name.
        header: Other texts for its header.
    """
    # Wide types first: so each begins at a multiple of its size.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    entries: dict[str, Any] = {"__metadata__": dict(header)} if header else {}
    offset = 0
    for name in order:
        tensor = tensors[name]
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for chunk in (len(text).to_bytes(8, "little"), text):
            file.write(chunk)
            digest.update(chunk)
        for name in order:
            content = tensors[name].detach().reshape(-1).view(torch.uint8).numpy().data
            file.write(content)
            digest.update(content)
    return digest.hexdigest()
