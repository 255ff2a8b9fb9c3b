"""Tensors in safetensors files: written with their SHA-256, read whole or in parts.

    model.safetensors                   whole tensors
    model-00001-of-00002.safetensors    the parts of the first of two processes

The files are written here, because the library does not return the bytes that it wrote, and reading
gigabytes again to hash them takes as long as writing them. torch's `HuggingFaceStorageWriter`
returns no hash either, and holds a second copy of all tensors in memory. The layout of parts is
that of torch's `HuggingFaceStorageReader`: the header of a file says where its parts begin in the
whole tensors. A file without that header is whole.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
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
_PART = re.compile(r"-\d{5}-of-\d{5}$")


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    offsets: Mapping[str, tuple[int, ...]] | None = None,
) -> str:
    """Write contiguous CPU tensors, and return the SHA-256 of the file.

    The format: https://github.com/huggingface/safetensors#format

    Args:
        path: The file.
        tensors: By name.
        offsets: If the tensors are parts: where they begin in the whole tensors.
    """
    # Wide types first, so that each tensor begins at a multiple of its element size.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header = _header({name: tensors[name] for name in order}, offsets)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for chunk in (len(header).to_bytes(8, "little"), header):
            file.write(chunk)
            digest.update(chunk)
        for name in order:
            content = tensors[name].detach().reshape(-1).view(torch.uint8).numpy().data
            file.write(content)
            digest.update(content)
    return digest.hexdigest()


def _header(tensors: Mapping[str, Tensor], offsets: Mapping[str, tuple[int, ...]] | None) -> bytes:
    """Return the JSON that gives the place of each tensor in the file, in their order."""
    entries: dict[str, Any] = {}
    if offsets is not None:
        info = {name: {"saved_offsets": list(offset)} for name, offset in offsets.items()}
        entries["__metadata__"] = {
            "DCP_SHARDING_INFO": json.dumps(info),
            "DCP_VERSION": "1.0",
            "format": "pt",
        }
    position = 0
    for name, tensor in tensors.items():
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, position + tensor.nbytes],
        }
        position += tensor.nbytes
    header = json.dumps(entries).encode()
    return header + b" " * (-len(header) % 8)


def load_tensors(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of a checkpoint by file and name; empty for a sharded checkpoint.

    Raises:
        SafetensorError: A file is damaged.
    """
    paths = sorted(folder.glob("*.safetensors"))
    is_in_parts = any(_PART.search(path.stem) for path in paths)
    return {} if is_in_parts else {path.stem: load_file(path) for path in paths}


def empty_tensors(folder: Path) -> dict[str, Tensor]:
    """Return uninitialised tensors with the names, shapes and types of those in a folder."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    metadata: Any = HuggingFaceStorageReader(str(folder)).read_metadata()
    return {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in metadata.state_dict_metadata.items()
    }


def read_into(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Fill tensors in place from a folder; each process reads its parts of sharded ones."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load

    with torch.no_grad(), warnings.catch_warnings():
        # `no_dist`: each process reads for itself, and needs no process group to do so.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
