"""Measures waits inside a step, the memory of the loss, and the speed of decoding."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.loops import Loop
from benchmarks.speed.measuring import peak_memory, seconds_of
from dimgpt.config import ModelConfig, SamplingConfig
from dimgpt.data.reading.batch import Batch
from dimgpt.generation.generator import generate_ids
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime
from dimgpt.text.special_tokens import SpecialTokens
from dimgpt.training.loss import chunked_cross_entropy, weighted_cross_entropy

_WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")


def find_waits(loop: Loop, batches: list[Batch]) -> dict[str, Any]:
    """Run a step in which waits for the device raise an error, and one with a profiler."""
    loop.step(batches)
    result: dict[str, Any] = {}
    try:
        with _refuse_to_wait(loop.runtime.device):
            loop.step(batches)
        result["step_without_waiting"] = loop.runtime.device.type == "cuda" or "open: no CUDA"
    except RuntimeError as error:
        result["step_without_waiting"] = False
        result["waits_at"] = str(error).splitlines()[0]
        loop.optimizer.zero_grad(set_to_none=True)
    result["profile"] = _profile(loop, batches)
    return result


@contextlib.contextmanager
def _refuse_to_wait(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _profile(loop: Loop, batches: list[Batch]) -> dict[str, Any]:
    is_cuda = loop.runtime.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    started = time.perf_counter()
    with profile(activities=activities) as profiler:
        loop.step(batches)
        if is_cuda:  # the one wait that is expected
            torch.cuda.synchronize(loop.runtime.device)
    wall = time.perf_counter() - started
    events = profiler.key_averages()
    kind = DeviceType.CUDA if is_cuda else DeviceType.CPU  # kernels, not who called them
    worked = [event for event in events if event.device_type == kind]
    key = "self_device_time_total" if is_cuda else "self_cpu_time_total"
    longest = sorted(worked, key=lambda event: -getattr(event, key))[:12]
    total = sum(getattr(event, key) for event in worked)
    return {
        "waits": {event.key: event.count for event in events if event.key in _WAITS},
        "busy_ms": round(total / 1e3, 2),
        "wall_ms": round(1e3 * wall, 2),
        "longest_ms": {event.key[:60]: round(getattr(event, key) / 1e3, 3) for event in longest},
    }


def measure_loss_memory(
    config: ModelConfig, runtime: Runtime, *, num_rows: int, num_chunks: int
) -> dict[str, Any]:
    """Return peak memory and time of output layer and loss, at once and in chunks."""
    torch.manual_seed(0)
    shape = (num_rows, config.context_length)
    model = Transformer(_one_layer(config)).to(runtime.device)
    hidden = torch.randn(*shape, config.embedding_dim, device=runtime.device, requires_grad=True)
    targets = torch.randint(config.vocab_size, shape, device=runtime.device)
    weights = torch.ones(shape, device=runtime.device)
    result: dict[str, Any] = {"tokens": targets.numel(), "chunks": num_chunks}
    values, use_compile = [], runtime.device.type == "cuda"
    for name, chunks in (("at_once", 1), ("in_chunks", num_chunks)):
        torch.compiler.reset()

        def compute(chunks: int = chunks) -> torch.Tensor:
            if chunks == 1:
                return weighted_cross_entropy(model.logits(hidden), targets, weights).loss
            sums = chunked_cross_entropy(model, hidden, targets, weights, num_chunks=chunks)
            return sums.loss

        function = torch.compile(compute, dynamic=False) if use_compile else compute

        def run(function: Any = function) -> None:
            with runtime.autocast():
                loss = function()
            loss.backward()
            values.append(float(loss.detach()))
            model.zero_grad(set_to_none=True)
            hidden.grad = None

        run()
        result[f"{name}_peak_bytes"] = peak_memory(run, runtime.device)
        seconds = min(seconds_of(run, runtime.device) for _ in range(3))
        result[f"{name}_ms"] = round(1e3 * seconds, 3)
    result["relative_gap_of_losses"] = abs(values[0] - values[-1]) / abs(values[0])
    return result


def _one_layer(config: ModelConfig) -> ModelConfig:
    return dataclasses.replace(config, num_layers=1)


def measure_decoding(config: ModelConfig, runtime: Runtime, *, num_tokens: int) -> dict[str, Any]:
    """Return tokens a second at batch 1, greedily, and the bytes of weights read for them.

    Compiled steps are CUDA graphs on a GPU. Each way has its own run first, which compiles.
    """
    torch.manual_seed(0)
    dtype = torch.bfloat16 if runtime.precision == "bf16" else torch.float32
    model = Transformer(config).to(device=runtime.device, dtype=dtype).eval()
    num_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    result: dict[str, Any] = {"dtype": str(dtype).removeprefix("torch.")}
    written: list[list[int]] = []
    ways = {"plain": False, "compiled": True} if runtime.device.type == "cuda" else {"plain": False}
    for name, use_compile in ways.items():
        settings = SamplingConfig(
            temperature=0.0, max_new_tokens=num_tokens, use_compile=use_compile
        )

        def decode(settings: SamplingConfig = settings) -> list[int]:
            prompt = range(20, 28)
            return list(generate_ids(model, prompt, settings, special_tokens=SpecialTokens()))

        first = seconds_of(decode, runtime.device)
        seconds = min(seconds_of(decode, runtime.device) for _ in range(3))
        written.append(decode())
        result[f"{name}_first_s"] = round(first, 2)
        result[f"{name}_tokens_per_second"] = round(num_tokens / seconds, 1)
        result[f"{name}_gb_per_second"] = round(num_tokens / seconds * num_bytes / 1e9, 2)
    result["same_tokens"] = sum(a == b for a, b in zip(written[0], written[-1], strict=False))
    return result
