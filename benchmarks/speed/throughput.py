"""Measures tokens a second, the share of peak speed, the time of parts, and the peer's speed."""

import statistics
import time
from typing import Any

import torch

from benchmarks.reporting import spread
from benchmarks.speed.loops import Loop, our_loop, peer_loop, random_batches, random_data
from benchmarks.speed.measuring import matmul_flops, peak_memory, seconds_of
from dimgpt.config import ModelConfig, TrainingConfig
from dimgpt.data.reading.batch import Batch
from dimgpt.model.flops import training_flops_per_token
from dimgpt.runtime import Runtime


def measure_steps(loop: Loop, batches: list[Batch], *, runs: int) -> dict[str, Any]:
    """Time optimizer steps on the same batches; the first one compiles and counts apart."""
    device = loop.runtime.device
    first = seconds_of(lambda: loop.step(batches), device)
    peak = peak_memory(lambda: loop.step(batches), device)
    seconds = [seconds_of(lambda: loop.step(batches), device) for _ in range(runs)]
    return {
        "first_step_s": round(first, 2),
        "peak_bytes_besides_weights_and_moments": peak,
        **rate(batches, seconds),
    }


def rate(batches: list[Batch], seconds: list[float]) -> dict[str, Any]:
    """Convert times of steps to tokens a second."""
    num_tokens = sum(batch.inputs.numel() for batch in batches)
    return {
        "tokens_per_step": num_tokens,
        "tokens_per_second": round(num_tokens / statistics.median(seconds), 1),
        "step_ms": spread([1e3 * value for value in seconds], digits=3),
    }


def shares(tokens_per_second: float, model: ModelConfig, ceiling: float) -> dict[str, float]:
    """Return a speed in FLOP/s, and as a share of the measured matrix products."""
    flops = tokens_per_second * training_flops_per_token(model)
    return {
        "tflops": round(flops / 1e12, 3),
        "ceiling_tflops": round(ceiling / 1e12, 3),
        "share_of_ceiling": round(flops / ceiling, 4),
    }


def measure_parts(loop: Loop, model: Any, batches: list[Batch], *, runs: int) -> dict[str, float]:
    """Return the median milliseconds of the parts of a step, with a wait after each.

    Forward is the model up to its hidden states; the loss has the output layer. Data is what the
    prefetching thread does while a step runs.
    """
    runtime, device = loop.runtime, loop.runtime.device
    batch = batches[0].to(device)
    hidden = model.hidden_states
    if is_compiled(loop.config, runtime):
        hidden = torch.compile(hidden, dynamic=False)

    def forward() -> Any:
        with runtime.autocast():
            return hidden(batch.inputs)

    def forward_and_loss() -> Any:
        with runtime.autocast():
            return loop.loss(batch)

    parts: dict[str, list[float]] = {"forward": [], "loss": [], "backward": [], "optimizer": []}
    for run in range(runs + 1):
        both = seconds_of(lambda: forward_and_loss(), device)
        alone = seconds_of(forward, device)
        whole = seconds_of(lambda: forward_and_loss().backward(), device)
        update = seconds_of(loop.update, device)
        if run > 0:  # the first one compiles
            for name, value in zip(parts, (alone, both - alone, whole - both, update), strict=True):
                parts[name].append(value)
    per_step = {"forward": len(batches), "loss": len(batches), "backward": len(batches)}
    medians = {
        f"{name}_ms": 1e3 * per_step.get(name, 1) * statistics.median(values)
        for name, values in parts.items()
    }
    medians["data_ms"] = 1e3 * _data_seconds(model.config, loop.config, runtime, runs=runs)
    return {name: round(value, 3) for name, value in medians.items()}


def _data_seconds(
    model: ModelConfig, config: TrainingConfig, runtime: Runtime, *, runs: int
) -> float:
    data, seconds = random_data(model, config), []
    for step in range(1, runs + 2):
        started = time.perf_counter()
        batches = data.batches(step)
        if runtime.device.type == "cuda":
            batches = [batch.pin_memory() for batch in batches]
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def compare_with_peer(
    model: ModelConfig, config: TrainingConfig, runtime: Runtime, *, runs: int
) -> dict[str, Any]:
    """Let the loops take steps by turns; return their speeds and how many times faster ours is.

    The plain loop is not compiled. If ours is, the peer compiled in the same way runs, too.
    """
    batches = random_batches(model, config, runtime)
    loops = {
        "ours": our_loop(model, config, runtime),
        "plain_loop": peer_loop(model, config, runtime, is_compiled=False),
    }
    if is_compiled(config, runtime):
        loops["compiled_loop"] = peer_loop(model, config, runtime, is_compiled=True)
    times: dict[str, list[float]] = {name: [] for name in loops}
    for loop in loops.values():
        loop.step(batches)
    for _ in range(runs):
        for name, loop in loops.items():
            times[name].append(seconds_of(lambda loop=loop: loop.step(batches), runtime.device))
    result: dict[str, Any] = {name: rate(batches, seconds) for name, seconds in times.items()}
    for name in list(loops)[1:]:
        ratios = [peer / ours for ours, peer in zip(times["ours"], times[name], strict=True)]
        result[f"ratio_to_{name}"] = spread(ratios, digits=3)
    return result


def is_compiled(config: TrainingConfig, runtime: Runtime) -> bool:
    """Return whether the trainer compiles with these settings."""
    return runtime.device.type == "cuda" if config.use_compile is None else config.use_compile


def ceiling_of(runtime: Runtime, *, is_toy: bool = False) -> float:
    """Measure products of a size that fills the device."""
    size = 8192 if runtime.device.type == "cuda" else 256 if is_toy else 1024
    return matmul_flops(runtime, size=size)
