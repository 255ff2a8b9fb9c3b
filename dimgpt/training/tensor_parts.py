"""Tensors whose parts lie in several files, put together for who needs them whole or cut otherwise.

    model-00001-of-00002.safetensors, model-00002-of-00002.safetensors: "model", in two files

The layout is that of torch.distributed.checkpoint's safetensors files, which its reader knows: the
header of each says where in the whole tensors its parts begin. A file without that is whole.
"""

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_PART = re.compile(r"-\d{5}-of-\d{5}$")


def part_name(name: str, *, rank: int, num_parts: int) -> str:
    """Return the name of a process's file, without suffix."""
    return f"{name}-{rank + 1:05d}-of-{num_parts:05d}"


def are_parts(path: Path) -> bool:
    """Say whether the tensors in a folder lie in parts."""
    return any(_PART.search(file.stem) for file in path.glob("*.safetensors"))


def part_header(offsets: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Return what the header of a file says of its parts: where each begins."""
    info = {name: {"saved_offsets": list(offset)} for name, offset in offsets.items()}
    return {"DCP_SHARDING_INFO": json.dumps(info), "DCP_VERSION": "1.0", "format": "pt"}


def stored_tensors(path: Path) -> dict[str, Tensor]:
    """Return the whole tensors of a folder by name, with room for their values."""
    return {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in _read_metadata(path).state_dict_metadata.items()
    }


def read_whole(path: Path) -> dict[str, dict[str, Tensor]]:
    """Return all tensors of a folder, put together, by the names of their files and their own."""
    whole = stored_tensors(path)
    read_into(whole, path)
    files: dict[str, dict[str, Tensor]] = {}
    for index, stored in _read_metadata(path).storage_data.items():
        file = _PART.sub("", Path(stored.relative_path).stem)
        files.setdefault(file, {})[index.fqn] = whole[index.fqn]
    return files


def read_into(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Read tensors of a folder in place; of those that are cut among processes, the own parts."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load

    with torch.no_grad(), warnings.catch_warnings():
        # `no_dist`: each process reads for itself, and needs no process group to do so.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True)


def _read_metadata(path: Path) -> Any:
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    return HuggingFaceStorageReader(str(path)).read_metadata()
