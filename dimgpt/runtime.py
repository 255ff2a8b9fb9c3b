"""The device of this process, its precision, its memory and its speed.

The only file that looks for a GPU, and for the other processes of torchrun. All others take the
`Runtime` that is made here.
"""

import contextlib
import dataclasses
import gc
import logging
import math
import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from dimgpt.config import Precision
from dimgpt.workers import num_cores

# Dense half-precision peaks from the makers' data sheets, FLOP/s with float32 accumulation.
PEAK_FLOPS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L4": 121e12,
    "T4": 65e12,
    "V100": 125e12,
    "RTX 5090": 210e12,
    "RTX 4090": 165e12,
    "RTX 4080": 97e12,
    "RTX 3090": 71e12,
    "RTX 3080": 60e12,
}
_DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """A device and the precision of its matmuls."""

    device: torch.device
    precision: Precision
    """Never `auto`. Weights and their updates are float32 in every precision."""
    rank: int = 0
    """Number of this process in the run, from 0."""
    num_processes: int = 1
    """Processes of the run, on all machines."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and logs of the run."""
        return self.rank == 0

    @property
    def half_dtype(self) -> torch.dtype | None:
        """The dtype of matmuls if it is not float32, else `None`."""
        dtype = _DTYPES[self.precision]
        return None if dtype == torch.float32 else dtype

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which matmuls run in `precision`."""
        if self.half_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.half_dtype)

    @contextlib.contextmanager
    def matmul_precision(self) -> Iterator[None]:
        """Allow TF32 for float32 matmuls if that is the precision, in the backward pass too.

        The setting is global to the process; it is restored when the block ends.
        """
        before = torch.get_float32_matmul_precision()
        if self.precision in ("fp32", "tf32"):
            torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)

    @property
    def is_asynchronous(self) -> bool:
        """Whether the device works through a queue while the host continues."""
        return self.device.type == "cuda"

    @property
    def needs_loss_scaling(self) -> bool:
        """Whether small gradients would vanish, as in float16 with its five exponent bits."""
        return self.precision == "fp16"


def choose_runtime(precision: Precision = "auto", device: str = "auto") -> Runtime:
    """Choose CUDA if there is a GPU, then Apple's GPU, then the CPU.

    Raises:
        ValueError: The device is missing, or does not support this precision.
    """
    chosen = _find_device(device)
    if precision == "auto":
        precision = _best_precision(chosen)
    if precision == "fp16" and chosen.type == "cpu":
        raise ValueError("precision is 'fp16': CPUs train in bf16 or fp32; choose one of them")
    if precision == "tf32" and not (
        chosen.type == "cuda" and torch.cuda.get_device_capability(chosen) >= (8, 0)
    ):
        raise ValueError(
            f"precision is 'tf32': {_device_name(chosen)} has no such products; choose fp32 or auto"
        )
    return Runtime(device=chosen, precision=precision)


@contextlib.contextmanager
def join_processes(precision: Precision = "auto", device: str = "auto") -> Iterator[Runtime]:
    """Yield the runtime of this process in a torchrun job; without one, that of a single process.

    The processes form torch's process group until the block ends. Only the first one logs warnings.

    Raises:
        ValueError: Several processes cannot share the device.
    """
    runtime = choose_runtime(precision, device)
    num_processes = int(os.environ.get("WORLD_SIZE", 1))
    if num_processes == 1:
        yield runtime
        return
    if ":" in device or runtime.device.type == "mps":
        raise ValueError(
            f"device is {device!r}: each of {num_processes} processes needs its own; choose cuda "
            "or cpu"
        )
    own, rank = runtime.device, int(os.environ["RANK"])
    if own.type == "cuda":
        own = _find_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(own)
    with _process_group(own, is_silent=rank > 0):
        yield dataclasses.replace(runtime, device=own, rank=rank, num_processes=num_processes)


@contextlib.contextmanager
def _process_group(device: torch.device, *, is_silent: bool) -> Iterator[None]:
    """Join torch's process group: gloo for tensors on the CPU, nccl for those on GPUs."""
    from torch._dynamo import config

    log = logging.getLogger("dimgpt")
    level = log.level
    if is_silent:
        log.setLevel(logging.ERROR)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        # Keep a compiled model in one graph: torch would split it to exchange gradients earlier,
        # and fails if the graph contains higher-order operators.
        with config.patch(optimize_ddp=False):
            yield
    finally:
        # Remaining references to the group would keep its threads alive until the interpreter ends.
        gc.collect()
        dist.destroy_process_group()
        log.setLevel(level)


def _find_device(name: str) -> torch.device:
    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
        return torch.device(name)
    kind, _, number = name.partition(":")
    counts = {"cuda": torch.cuda.device_count(), "mps": int(has_mps), "cpu": 1}
    if kind not in counts or not (number or "0").isdecimal():
        raise ValueError(f"device is {name!r}: choose auto, cuda, mps or cpu")
    if int(number or 0) >= counts[kind]:
        raise ValueError(
            f"device is {name!r}: torch sees {counts[kind]} of that kind here; choose auto or cpu"
        )
    return torch.device(name)


def _best_precision(device: torch.device) -> Precision:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and _cpu_multiplies_bf16() else "fp32"


def _cpu_multiplies_bf16() -> bool:
    """Return whether the CPU has the instructions without which bf16 is slower than float32."""
    info = Path("/proc/cpuinfo")
    return info.exists() and "avx512_bf16" in info.read_text(errors="replace")


def peak_flops(runtime: Runtime) -> float:
    """Return the FLOP/s that count as 100 %: from the data sheet, else from a quick measurement."""
    if runtime.device.type == "cuda":
        name = torch.cuda.get_device_name(runtime.device)
        for card, peak in PEAK_FLOPS.items():
            if card in name and runtime.precision != "fp32":
                return peak / 2 if runtime.precision == "tf32" else peak
    matrix = torch.randn(1024, 1024, device=runtime.device, dtype=_DTYPES[runtime.precision])
    best, deadline = math.inf, time.perf_counter() + 0.1
    while time.perf_counter() < deadline or best == math.inf:
        start = time.perf_counter()
        (matrix @ matrix)[0, 0].item()  # .item() waits for the device
        best = min(best, time.perf_counter() - start)  # the machine may be shared
    return 2 * len(matrix) ** 3 / best


def available_memory(runtime: Runtime) -> int:
    """Return the free bytes of the device's memory."""
    if runtime.device.type == "cuda":
        return torch.cuda.mem_get_info(runtime.device)[0]
    return _free_ram()


def _free_ram() -> int:
    try:
        import psutil
    except ImportError:  # Linux's own figure excludes memory that its caches would release
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return psutil.virtual_memory().available


def describe_machine(runtime: Runtime) -> dict[str, str]:
    """Return the hardware and versions of this machine, as rows of a table."""
    rows = {
        "device": _device_name(runtime.device),
        "precision": runtime.precision,
        "memory": f"{_free_ram() / 2**30:.1f} GiB free",
        "disk": f"{shutil.disk_usage(Path()).free / 2**30:.1f} GiB free",
        "cores": str(num_cores()),
        "python, torch": f"{platform.python_version()}, {torch.__version__}",
    }
    if runtime.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(runtime.device)
        rows["GPU memory"] = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    return rows


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return {"mps": "Apple GPU", "cpu": f"CPU ({platform.machine()})"}.get(device.type, device.type)
