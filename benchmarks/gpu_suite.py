"""Checks and measures everything that needs a GPU, with one command, in less than nine minutes.

Compares every kernel with the naive attention, experts and bf16 with fp32. Measures speed at full
size with several micro-batches and by parts, other presets, the peer, waits inside a step, the
memory of the loss, and decoding. Checks resuming. A section that fails records its error, and one
for which no time is left says so; the others continue. The result is written after each section.
Needs torch >= 2.11, numpy, regex, tqdm, tokenizers and transformers.

    python benchmarks/gpu_suite.py                 one card, the published model
    python benchmarks/gpu_suite.py --only peer presets micro-batches
    python benchmarks/gpu_suite.py --toy           tiny sizes, to test this script on any machine
"""

import argparse
import dataclasses
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # this checkout, whatever is installed

import torch  # noqa: E402

from benchmarks.speed.checks import (  # noqa: E402
    check_experts,
    check_kernels,
    check_resume,
    compare_precisions,
)
from benchmarks.speed.inspection import (  # noqa: E402
    find_waits,
    measure_decoding,
    measure_loss_memory,
)
from benchmarks.speed.loops import our_loop, random_batches  # noqa: E402
from benchmarks.speed.measuring import describe, result_path, write_result  # noqa: E402
from benchmarks.speed.throughput import (  # noqa: E402
    ceiling_of,
    compare_with_peer,
    measure_parts,
    measure_steps,
    shares,
)
from dimgpt.config import ModelConfig, TrainingConfig  # noqa: E402
from dimgpt.presets import get_preset  # noqa: E402
from dimgpt.runtime import Runtime, choose_runtime  # noqa: E402

Record = dict[str, Any]
SMALL = ModelConfig(
    vocab_size=256,
    context_length=64,
    window_size=32,
    embedding_dim=128,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    ffn_dim=341,
    init_std=0.05,
)
TOY = ModelConfig(
    vocab_size=64,
    context_length=16,
    window_size=8,
    embedding_dim=16,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    ffn_dim=21,
)


class Suite:
    """Sections in their order, within a number of seconds."""

    def __init__(
        self, runtime: Runtime, *, is_toy: bool, seconds: float, path: Path, only: list[str]
    ) -> None:
        self.runtime, self.is_toy, self.path, self.only = runtime, is_toy, path, only
        self.deadline = time.perf_counter() + seconds
        self.full = TOY if is_toy else ModelConfig()
        self.config = TrainingConfig(use_compile=False if is_toy else None)
        self.runs = 1 if is_toy else 3
        self.ceiling = ceiling_of(runtime, is_toy=is_toy)
        # The first micro-batch is also taken apart; the others follow while time is left.
        self.batch_sizes = (2, 1) if is_toy else (64, 128, 256, 16)
        if is_toy:
            self.config = dataclasses.replace(self.config, batch_size=2, accumulation_steps=2)
        self.result: Record = {"benchmark": "gpu_suite", **describe(runtime), "is_toy": is_toy}
        if runtime.device.type != "cuda":
            self.result["figures"] = "open: there is no CUDA device here"

    def run(self) -> Record:
        """Run all sections and return the result."""
        steps = 5 if self.is_toy else 200
        small = TOY if self.is_toy else SMALL
        sections: list[tuple[str, float, Callable[[], Record]]] = [
            ("kernels", 100, lambda: check_kernels(self.runtime, is_toy=self.is_toy)),
            ("experts", 5, lambda: check_experts(self.runtime, is_toy=self.is_toy)),
            ("precisions", 30, lambda: compare_precisions(small, self.runtime, steps=steps)),
            ("resume", 15, lambda: check_resume(small, self.runtime)),
            ("throughput", 130, self.measure_throughput),
            ("decoding", 100, self.measure_decoding),
            ("loss memory", 40, self.measure_loss_memory),
            ("peer", 150, self.measure_peer),
            ("presets", 60, self.measure_presets),
            ("micro-batches", 90, self.measure_micro_batches),
        ]
        for name, seconds, section in sections:
            if not self.only or name in self.only:
                self._run_section(name, seconds, section)
        return self.result

    def _run_section(self, name: str, seconds: float, section: Callable[[], Record]) -> None:
        started = time.perf_counter()
        if not self.is_toy and self._seconds_left() < seconds:
            self.result[name] = {"open": f"{self._seconds_left():.0f} s were left"}
        else:
            try:
                self.result[name] = section()
            except Exception as error:  # the other sections are still useful
                traceback.print_exc()
                self.result[name] = {"error": f"{type(error).__name__}: {error}"}
            self.result[name]["section_s"] = round(time.perf_counter() - started, 1)
        _clean_up(self.runtime)
        write_result(self.result, self.path)
        _print_section(name, self.result[name])

    def _seconds_left(self) -> float:
        return self.deadline - time.perf_counter()

    def _divided(self, batch_size: int) -> TrainingConfig:
        accumulation = self.config.sequences_per_step // batch_size
        return dataclasses.replace(
            self.config, batch_size=batch_size, accumulation_steps=accumulation
        )

    def measure_throughput(self) -> Record:
        """Measure the full size with one micro-batch, its parts, and whether a step waits."""
        config = self._divided(self.batch_sizes[0])
        batches = random_batches(self.full, config, self.runtime)
        loop = our_loop(self.full, config, self.runtime)
        steps = measure_steps(loop, batches, runs=self.runs)
        result = {
            "batch_size": config.batch_size,
            **steps,
            **shares(steps["tokens_per_second"], self.full, self.ceiling),
        }
        result["graph_breaks"] = sum(torch._dynamo.utils.counters["graph_break"].values())
        result["waits"] = find_waits(loop, batches)
        result["parts"] = measure_parts(loop, loop.model, batches, runs=self.runs)
        return result

    def measure_micro_batches(self) -> Record:
        """Measure the other micro-batches, while time is left."""
        result: Record = {}
        for batch_size in self.batch_sizes[1:]:
            if not self.is_toy and self._seconds_left() < 90:
                result[str(batch_size)] = "open: no time was left"
                continue
            config = self._divided(batch_size)
            batches = random_batches(self.full, config, self.runtime)
            try:
                loop = our_loop(self.full, config, self.runtime)
                result[str(batch_size)] = measure_steps(loop, batches, runs=self.runs)
            except torch.OutOfMemoryError:
                result[str(batch_size)] = "out of memory"
            loop = None
            _clean_up(self.runtime)
        return result

    def measure_peer(self) -> Record:
        """Measure the peer by turns, at half the micro-batch: two models share the memory."""
        config = self._divided(max(self.batch_sizes[0] // 2, 1))
        return compare_with_peer(self.full, config, self.runtime, runs=self.runs)

    def measure_presets(self) -> Record:
        """Measure the steps of other presets, and their parts, while time is left."""
        names = ("dimensiongpt-0.2b-modern", "lillm-39m", "french-5m-modern")
        return {name: self._measure_preset(name) for name in names}

    def _measure_preset(self, name: str) -> Record | str:
        if not self.is_toy and self._seconds_left() < 60:
            return "open: no time was left"
        preset = get_preset(name)
        config = dataclasses.replace(preset.pretraining, use_compile=self.config.use_compile)
        shape = preset.model
        if self.is_toy:
            shape = dataclasses.replace(TOY, tie_embeddings=preset.model.tie_embeddings)
            config = dataclasses.replace(config, batch_size=2, accumulation_steps=2)
        elif config.accumulation_steps > 1:  # a large card takes more rows at a time
            more = self.batch_sizes[0] // config.batch_size
            config = dataclasses.replace(
                config,
                batch_size=config.batch_size * more,
                accumulation_steps=config.accumulation_steps // more,
            )
        batches = random_batches(shape, config, self.runtime)
        loop = our_loop(shape, config, self.runtime)
        steps = measure_steps(loop, batches, runs=self.runs)
        result = {"batch_size": config.batch_size, **steps}
        result |= shares(steps["tokens_per_second"], shape, self.ceiling)
        result["parts"] = measure_parts(loop, loop.model, batches, runs=self.runs)
        loop = None
        _clean_up(self.runtime)
        return result

    def measure_decoding(self) -> Record:
        """Measure tokens a second at batch 1, at several sizes."""
        if self.is_toy:
            return {"toy": measure_decoding(TOY, self.runtime, num_tokens=4)}
        names = ("dimensiongpt-0.2b", "french-5m", "demo")
        return {
            name: measure_decoding(get_preset(name).model, self.runtime, num_tokens=200)
            for name in names
        }

    def measure_loss_memory(self) -> Record:
        """Measure the loss at once and in chunks."""
        rows = 2 if self.is_toy else 64
        return measure_loss_memory(self.full, self.runtime, num_rows=rows, num_chunks=8)


def _clean_up(runtime: Runtime) -> None:
    torch._dynamo.reset()
    gc.collect()
    if runtime.device.type == "cuda":
        torch.cuda.empty_cache()


def _print_section(name: str, values: Record) -> None:
    print(f"\n{name}")
    for key, value in values.items():
        if isinstance(value, dict):
            value = ", ".join(f"{inner} {number}" for inner, number in value.items())
        print(f"  {key:46} {value}")
    sys.stdout.flush()


def main() -> None:
    """Run the suite; the last line is the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=8, help="when to stop beginning sections")
    parser.add_argument("--only", nargs="+", default=[], help="names of sections; all if unset")
    parser.add_argument(
        "--out", type=Path, help="where the JSON goes; benchmarks/results/ if unset"
    )
    arguments = parser.parse_args()
    runtime = choose_runtime(device=arguments.device)
    if runtime.device.type != "cuda" and not arguments.toy:
        print("there is no CUDA device here, nothing is measured: --toy shows that it runs")
        return
    path = arguments.out or result_path(describe(runtime), "gpu-suite")
    suite = Suite(
        runtime,
        is_toy=arguments.toy,
        seconds=60 * arguments.minutes,
        path=path,
        only=arguments.only,
    )
    print(json.dumps(suite.run()))


if __name__ == "__main__":
    main()
