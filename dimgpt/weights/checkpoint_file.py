"""Reads tensors and plain settings from a file that PyTorch saved, without executing its code.

`torch.load(weights_only=True)` reads the file. This file adds the checks that PyTorch does not
make: no compressed or overlapping entries, right checksums, no tensors larger than the file, no
methods that a file gives to its objects. One foreign class is expected, lilLM's pickled config;
only its plain values are kept. Optimizer states stay in the mapped file.
"""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from dimgpt.weights.foreign_files import describe, list_names

Plain = None | bool | int | float | str
_LILLM_CONFIG = "model.config.Config"
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Left by torch.compile and by DistributedDataParallel.
_PREFIXES = re.compile(r"(?:_orig_mod\.|module\.)+")
_AGAIN = "take it from its source again"


class StoredConfig:
    """Replaces a pickled dataclass, whose own code is neither needed nor imported."""

    values: Mapping[str, Plain] = MappingProxyType({})

    def __setstate__(self, state: object) -> None:
        if type(state) is not dict or not all(
            isinstance(name, str) and (value is None or type(value) in (bool, int, float, str))
            for name, value in state.items()
        ):
            raise ValueError("a config may hold only numbers, strings, booleans and None")
        self.values = dict(state)  # a copy, because the file could still change its own


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a bare state dict, lilLM's dict around one, or a Lightning checkpoint.

    Returns:
        The tensors by the names of the system that saved them, without the prefixes of wrappers;
        and the settings that were saved with them, empty if none were.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, contains code, or is not the weights of a model.
    """
    state, settings = _split(load_plain(path), path)
    return _checked(state, path), settings


def load_plain(path: Path) -> object:
    """Return the tensors and plain values of a PyTorch file; tensors are mapped where possible.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or contains code.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give the file with the weights")
    if any("\ud800" <= sign <= "\udfff" for sign in str(path)):  # PyTorch opens no such path
        raise ValueError(f"{path} has a name that is not UTF-8: rename it")
    try:
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            _require_sound_archive(path)
        allowed = torch.serialization.safe_globals([(StoredConfig, _LILLM_CONFIG)])
        with allowed, warnings.catch_warnings(action="ignore"):  # about pickles of old versions
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # damage and attacks surface as almost any exception
        raise ValueError(
            f"{path} is {describe(path)} and no plain state dict ({type(error).__name__}): it is "
            f"damaged or holds code, which was not run; {_AGAIN}"
        ) from None


def _require_sound_archive(path: Path) -> None:
    """Refuse what PyTorch does not write: compressed or overlapping entries, wrong checksums."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        is_compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        overlaps = sum(entry.file_size for entry in entries) > path.stat().st_size
        # Checksums last, because they decompress the entries.
        if is_compressed or overlaps or archive.testzip() is not None:
            raise zipfile.BadZipFile


def _split(content: object, path: Path) -> tuple[dict[Any, Any], dict[str, Any]]:
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} that is no state dict: {_AGAIN}")
    content = _entries(content)
    if isinstance(state := content.get("state_dict"), dict):
        settings = content.get("hyper_parameters") or {}
    elif isinstance(state := content.get("model"), dict):
        stored = content.get("config") or {}
        settings = dict(stored.values) if isinstance(stored, StoredConfig) else stored
    else:
        return content, {}
    if not isinstance(settings, dict):
        raise ValueError(
            f"{path} has a config of type {type(settings).__name__} instead of dict: {_AGAIN}, or "
            "save its state dict alone"
        )
    return _entries(state), _entries(settings)


def _entries(content: dict[Any, Any]) -> dict[Any, Any]:
    """Return a plain dict; a file can give an OrderedDict other methods."""
    return dict(dict.items(content))


def _checked(state: dict[Any, Any], path: Path) -> dict[str, Tensor]:
    bad = [repr(name) for name, value in state.items() if not _is_usable(name, value)]
    if bad:
        raise ValueError(
            f"{path} holds a dict that is no state dict of plain tensors: {list_names(bad)} is no "
            "plain floating-point tensor; take the file that the trainer saved"
        )
    claimed, num_bytes = sum(tensor.nbytes for tensor in state.values()), path.stat().st_size
    if claimed > 2 * num_bytes:  # a tied matrix may be there under two names
        raise ValueError(
            f"{path} has {num_bytes:,} bytes, but claims tensors of {claimed:,} bytes: it is "
            f"damaged or made to exhaust the memory; {_AGAIN}"
        )
    tensors = {_PREFIXES.sub("", name, count=1): value for name, value in state.items()}
    if len(tensors) < len(state):
        raise ValueError(f"{path} holds tensors twice, with and without a prefix: {_AGAIN}")
    return tensors


def _is_usable(name: object, value: Any) -> bool:
    """Return whether an entry is a printable name with a tensor whose numbers are in memory."""
    return (
        isinstance(name, str)
        and name.isprintable()
        and type(value) in (Tensor, Parameter)
        and not vars(value)  # a file can give a tensor other methods
        and value.layout == torch.strided
        and not value.is_meta
        and value.dtype in _FLOATS
    )
