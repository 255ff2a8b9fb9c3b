"""Claim: on a CPU in bf16, attention by batched matrix products trains the demo twice as fast.

The peer is torch's SDPA. There is no gain if the scores do not fit into the caches (`french-5m`).

Both sides run alternately in one process, forward and backward, at the shapes of the presets that
are trained on CPUs. Prints one JSON line; with `--write`, also keeps it in benchmarks/results/.
"""

import time
from typing import Any

import torch
from reporting import report, spread

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


def compare(preset: str) -> dict[str, Any]:
    """Return the milliseconds of both, and how many times faster `matmul` is."""
    chosen = get_preset(preset)
    times: dict[str, list[float]] = {"sdpa": [], "matmul": []}
    for _ in range(REPEATS):
        for kernel, measured in times.items():
            measured.append(seconds_of(kernel, chosen.pretraining.batch_size, chosen.model))
    ratios = [a / b for a, b in zip(times["sdpa"], times["matmul"], strict=True)]
    return {
        **{
            f"{kernel}_ms": spread([1e3 * t for t in measured])
            for kernel, measured in times.items()
        },
        "ratio": spread(ratios),
    }


def main() -> None:
    """Measure and print."""
    processor = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    report(
        "attention",
        {
            "torch": torch.__version__,
            "processor": processor,
            **{preset: compare(preset) for preset in ("demo", "french-5m")},
        },
    )


if __name__ == "__main__":
    main()
