"""Claim: on a CPU in bf16, attention by batched matrix products trains the demo twice as fast.

The peer is torch's SDPA. Where the scores outgrow the caches (`french-5m`) there is no gain.

Both sides run alternately in one process, forward and backward, at the shapes of the presets that
are trained on CPUs. Prints one JSON line; with `--write`, also keeps it in benchmarks/results/.
"""

import json
import platform
import statistics
import sys
import time
from datetime import date
from pathlib import Path

import torch

from dimgpt.config import ModelConfig
from dimgpt.model.attention import attention
from dimgpt.presets import get_preset

REPEATS = 7


def seconds_of(kernel: str, batch_size: int, config: ModelConfig) -> float:
    """Time one forward and backward pass of a kernel."""
    heads = (config.num_heads, config.num_kv_heads, config.num_kv_heads)
    q, k, v = (
        torch.randn(
            batch_size,
            config.context_length,
            count,
            config.head_dim,
            dtype=torch.bfloat16,
            requires_grad=True,
        )
        for count in heads
    )
    start = time.perf_counter()
    attention(q, k, v, window_size=config.window_size, kernel=kernel).sum().backward()
    return time.perf_counter() - start


def compare(preset: str) -> dict[str, float]:
    """Return the medians in milliseconds, and how many times faster `matmul` is."""
    chosen = get_preset(preset)
    times: dict[str, list[float]] = {"sdpa": [], "matmul": []}
    for _ in range(REPEATS):
        for kernel, measured in times.items():
            measured.append(seconds_of(kernel, chosen.pretraining.batch_size, chosen.model))
    medians = {kernel: statistics.median(measured) for kernel, measured in times.items()}
    ratios = [a / b for a, b in zip(times["sdpa"], times["matmul"], strict=True)]
    return {
        **{f"{kernel}_ms": round(1e3 * value, 2) for kernel, value in medians.items()},
        "ratio": round(medians["sdpa"] / medians["matmul"], 2),
        "lowest_ratio": round(min(ratios), 2),
        "highest_ratio": round(max(ratios), 2),
    }


def main() -> None:
    """Measure and print."""
    result = {
        "benchmark": "attention",
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        **{preset: compare(preset) for preset in ("demo", "french-5m")},
    }
    print(json.dumps(result))
    if "--write" in sys.argv:
        folder = Path(__file__).parent / "results"
        folder.mkdir(exist_ok=True)
        path = folder / f"{result['date']}-attention.json"
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
