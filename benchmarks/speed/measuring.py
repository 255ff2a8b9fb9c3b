"""Clocks, the description and peak speed of the machine, and the files of results."""

import json
import platform
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

from dimgpt.runtime import Runtime
from dimgpt.workers import num_cores

RESULTS = Path(__file__).parents[1] / "results"


def describe(runtime: Runtime) -> dict[str, str]:
    """Return the date, the machine and the versions that a figure depends on."""
    if runtime.device.type == "cuda":
        machine = torch.cuda.get_device_name(runtime.device)
    else:
        machine = (
            f"{platform.machine()}, {torch.get_num_threads()} of {num_cores()} cores, "
            f"{torch.backends.cpu.get_cpu_capability()}"
        )
    return {
        "date": date.today().isoformat(),
        "machine": machine,
        "precision": runtime.precision,
        "torch": torch.__version__,
    }


def wait(device: torch.device) -> None:
    """Wait until the device has finished its queue; a CPU has none."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(run: Callable[[], Any], device: torch.device) -> float:
    """Time a call, including the work that it queues on the device.

    On a CPU these are seconds of processor time of all threads, which other programs disturb less.
    """
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    wait(device)
    started = clock()
    run()
    wait(device)
    return clock() - started


def matmul_flops(runtime: Runtime, *, size: int, repeats: int = 10) -> float:
    """Return the FLOP/s of products of random square matrices, the 100 % of other figures."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    matrices = [
        torch.randn(size, size, device=runtime.device, dtype=dtype[runtime.precision])
        for _ in range(3)
    ]

    def multiply() -> None:
        for _ in range(repeats):
            torch.mm(matrices[0], matrices[1], out=matrices[2])

    multiply()
    return repeats * 2 * size**3 / min(seconds_of(multiply, runtime.device) for _ in range(10))


def peak_memory(run: Callable[[], Any], device: torch.device) -> int | None:
    """Return the peak memory of a call in bytes, above the memory before it; `None` on a CPU."""
    if device.type != "cuda":
        run()
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    wait(device)
    return torch.cuda.max_memory_allocated(device) - before


def write_result(result: dict[str, Any], path: Path) -> None:
    """Save a result; create its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def result_path(result: dict[str, Any], name: str) -> Path:
    """Return the path for a result of this date and machine."""
    machine = "".join(c if c.isalnum() else "-" for c in result["machine"].split(",")[0])
    return RESULTS / f"{result['date']}-{name}-{machine.lower()}.json"
