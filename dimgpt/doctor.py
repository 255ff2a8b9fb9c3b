"""Finds problems of the installation, the device, free space, data, models and runs.

A check opens the same files as a training or a chat, and reports the error that they would raise.
"""

import contextlib
import importlib.metadata
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from dimgpt.config import ModelConfig
from dimgpt.data.token_file import changed_files
from dimgpt.info import advise
from dimgpt.installation import own_requirements
from dimgpt.model.attention import attention, fastest_kernel
from dimgpt.model.fused_attention import HAS_FLASH_ATTN, supports_varlen
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.data import (
    fingerprint_data,
    open_corpus,
    require_conversations,
    source_folders,
)
from dimgpt.pipeline.models import open_model
from dimgpt.pipeline.training import open_run
from dimgpt.runtime import Runtime, available_memory, describe_machine, peak_flops
from dimgpt.settings import override
from dimgpt.training.checkpoint import CheckpointStore
from dimgpt.training.journal import read_history
from dimgpt.training.micro_batch_search import measure_micro_batch
from dimgpt.workspace import STAGES, Stage, Workspace, load_vocabulary

_REQUIREMENT = re.compile(r"([\w.-]+)(?:==([\w.]+))?[^;]*(?:; extra == \"(\w+)\")?")
_MAX_KERNEL_ERROR = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
_USUAL_ERRORS = (OSError, ValueError, RuntimeError, ImportError, NotImplementedError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of the report."""

    level: Literal["ok", "warning", "problem"]
    """A warning may be intended; a problem stops a command."""
    about: str
    found: str
    """The result of the check, and after a colon what to do, if anything."""


def examine(workspace: Workspace, runtime: Runtime) -> Iterator[Finding]:
    """Yield findings about this machine, and about the data, models and runs of a workspace."""
    yield from _packages()
    yield from _device(runtime)
    yield _space(workspace, runtime)
    yield _tried("a step of training", lambda: _smoke(workspace.preset.model, workspace, runtime))
    yield from _data(workspace)
    for stage in STAGES:
        if (folder := workspace.model_dir(stage)).exists():
            yield _tried(f"model {folder}", partial(_model, folder, runtime))
        if (folder := workspace.run_dir(stage)).exists():
            yield _tried(f"run {folder}", partial(_run, folder))


def _tried(about: str, check: Callable[[], str]) -> Finding:
    """Report what a check returns, or the error that it raises."""
    try:
        return Finding(level="ok", about=about, found=check())
    except _USUAL_ERRORS as error:
        found = " ".join(str(error).split()) or type(error).__name__
        return Finding(level="problem", about=about, found=found)


def _packages() -> Iterator[Finding]:
    """Compare the installed packages with the requirements of dimgpt."""
    others, missing = dict[str, str](), dict[str, list[str]]()
    for requirement in own_requirements():
        match = _REQUIREMENT.match(requirement)
        assert match is not None
        name, pinned, extra = match.groups()
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.setdefault(extra, []).append(name)
            continue
        if pinned and version.split("+")[0] != pinned:
            others[name] = f"{version} instead of {pinned}"
    about = "packages"
    if absent := missing.pop(None, []):  # type: ignore[call-overload]
        found = f"{', '.join(absent)} missing: run pip install -r requirements.txt"
        yield Finding(level="problem", about=about, found=found)
    if others:
        listed = ", ".join(f"{name} {version}" for name, version in others.items())
        found = f"{listed}: dimgpt was tested with the latter; run pip install -r requirements.txt"
        yield Finding(level="warning", about=about, found=found)
    if not absent and not others:
        yield Finding(level="ok", about=about, found="as requirements.txt has them")
    for extra, names in missing.items():
        found = f"{', '.join(names)} missing: run pip install {' '.join(names)} if you need"
        yield Finding(level="warning", about=f"optional: {extra}", found=f"{found} {extra}")


def _device(runtime: Runtime) -> Iterator[Finding]:
    """Describe the device, and compare its attention kernels with the naive computation."""
    machine = "; ".join(f"{name} {value}" for name, value in describe_machine(runtime).items())
    yield Finding(level="ok", about="machine", found=machine)
    dtype = runtime.half_dtype or torch.float32
    limit = _MAX_KERNEL_ERROR[dtype]
    errors, failures = dict[str, float](), dict[str, str]()
    for name in _kernels(runtime, dtype):
        try:
            errors[name] = _kernel_error(name, runtime.device, dtype)
        except Exception as error:  # compilers and drivers have errors of their own
            failures[name] = type(error).__name__
    good = [f"{name} ({error:.0e})" for name, error in errors.items() if error <= limit]
    wrong = [f"{name} ({error:.0e})" for name, error in errors.items() if not error <= limit]
    found = f"{', '.join(good)} agree with the naive computation in {dtype}"
    yield Finding(level="ok", about="attention", found=found)
    if wrong:
        found = f"{', '.join(wrong)} differ from the naive computation: update torch and the driver"
        yield Finding(level="problem", about="attention", found=found)
    for name, reason in failures.items():
        is_chosen = name == fastest_kernel(runtime.device, dtype)
        found = f"{name} fails here ({reason}): update torch and the driver if you want to use it"
        yield Finding(level="problem" if is_chosen else "warning", about="attention", found=found)
    if runtime.device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        found = "no C++ compiler: install one, such as g++, if you want use_compile"
        yield Finding(level="warning", about="torch.compile", found=found)


def _kernels(runtime: Runtime, dtype: torch.dtype) -> list[str]:
    """Return the names of this device's kernels."""
    if runtime.device.type != "cuda":
        return ["matmul", "sdpa"]
    is_half = dtype != torch.float32
    has = {
        "flash_attn": is_half and HAS_FLASH_ATTN,
        "varlen": is_half and supports_varlen(runtime.device),
    }
    return ["matmul", "sdpa", "flex", *(name for name, is_there in has.items() if is_there)]


def _kernel_error(name: str, device: torch.device, dtype: torch.dtype) -> float:
    """Return the largest difference of a kernel from the naive one on random numbers."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 96, 4, 32), (2, 96, 2, 32), (2, 96, 2, 32))  # queries, keys, values
    q, k, v = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    with torch.inference_mode():
        ours, exact = (attention(q, k, v, window_size=20, kernel=each) for each in (name, "naive"))
    return float((ours.float() - exact.float()).abs().max())


def _space(workspace: Workspace, runtime: Runtime) -> Finding:
    """Compare free memory and disk with the needs of the preset."""
    disk = shutil.disk_usage(Path()).free
    memory, flops = available_memory(runtime), peak_flops(runtime)
    found = advise(workspace.preset, memory=memory, disk=disk, flops=flops)
    is_enough = found.startswith("fits")
    about = f"preset {workspace.preset.name}"
    return Finding(level="ok" if is_enough else "problem", about=about, found=found)


def _smoke(config: ModelConfig, workspace: Workspace, runtime: Runtime) -> str:
    """Train on random ids with a small model of the preset's architecture."""
    small = override(config, num_layers=min(2, config.num_layers), vocab_size=512)
    training = override(workspace.preset.pretraining, batch_size=1, accumulation_steps=1)
    training = override(training, use_compile=False)
    model = Transformer(small).to(runtime.device)
    found = measure_micro_batch(model, training, runtime, repeats=2)
    if found is None:
        raise RuntimeError("out of memory with one row: close other programs, or shorten context")
    return f"two layers of the preset train at {found.tokens_per_second:,.0f} tokens/s"


def _data(workspace: Workspace) -> Iterator[Finding]:
    """Open the vocabulary and all token files, and check their hashes."""
    about = f"data {workspace.data_folder}"
    if not workspace.data_folder.exists():
        found = f"nothing prepared yet: run `{workspace.prepare_command}`, or create_data.ipynb"
        yield Finding(level="warning", about=about, found=found)
        return

    def documents() -> str:
        corpus, vocabulary = open_corpus(workspace), load_vocabulary(workspace)
        sizes = [sum(file.num_tokens for file in corpus.train.files)]
        sizes.append(sum(file.num_tokens for file in corpus.validation.files))
        return (
            f"{vocabulary.vocab_size:,} tokens in the vocabulary, {sizes[0]:,} to train on, "
            f"{sizes[1]:,} held out, all hashes right"
        )

    yield _tried(about, documents)
    for stage in STAGES[1:]:
        if workspace.data_dir(stage).exists():
            yield _tried(f"{about}, {stage}", partial(_groups, workspace, stage))
    for stage in STAGES:
        yield from _sources(workspace, stage)


def _sources(workspace: Workspace, stage: Stage) -> Iterator[Finding]:
    """Compare the files of the sources with those that were prepared."""
    with contextlib.suppress(OSError, ValueError):  # the checks above report these errors
        for folder in source_folders(workspace, stage):
            for name, change in changed_files(folder).items():
                found = f"{name} {change} since it was prepared: prepare again to train on it"
                yield Finding(level="warning", about=f"source {folder.name}", found=found)


def _groups(workspace: Workspace, stage: Stage) -> str:
    groups = require_conversations(workspace, stage)
    fingerprint_data(workspace, stage)  # reads all manifests
    return f"{len(groups)} groups: {', '.join(group.name for group in groups)}"


def _model(folder: Path, runtime: Runtime) -> str:
    """Open a model, which checks its hashes and refuses NaN."""
    model, tokenizer = open_model(folder, runtime=runtime)
    return f"{model.num_parameters:,} parameters, {tokenizer.vocab_size:,} tokens"


def _run(folder: Path) -> str:
    """Return the step at which a run would resume; raise the error that would stop it."""
    workspace, stage = open_run(folder, models_root=folder.parent.parent)
    checkpoint = CheckpointStore(folder / "checkpoints").load_latest()
    if checkpoint is None:
        if damaged := sorted(path.name for path in folder.glob("checkpoints/step-*")):
            raise ValueError(
                f"{', '.join(damaged)} are damaged: restore a copy, or delete the folder and "
                "train from step 0"
            )
        return "no checkpoint yet: the run begins at step 0"
    now = {
        "vocabulary": load_vocabulary(workspace).fingerprint,
        "data": fingerprint_data(workspace, stage),
    }
    saved = {"vocabulary": checkpoint.state["vocabulary"], **checkpoint.state["fingerprints"]}
    if changed := [name for name, value in now.items() if saved.get(name, value) != value]:
        raise ValueError(
            f"{' and '.join(changed)} changed since step {checkpoint.step}, so the run cannot be "
            "resumed: restore the old files, or train under another name"
        )
    num_records = len(read_history(folder / "history.jsonl"))
    return f"resumes at step {checkpoint.step} ({num_records:,} records of history)"
