"""Claim: a step takes less time here than with `transformers`' Mistral in a plain loop.

Both sides have the same architecture, batches, optimizer and precision, and take turns step by
step. Ours is compiled together with its loss, unless `--no-compile` is given. The plain loop is not
compiled; the peer compiled in the same way is measured as a third side. Also measures tokens a
second, TFLOP/s, the share of this machine's measured matrix products, memory, and the time of each
part. Prints a table and one JSON line; `--write` saves it in benchmarks/results/.

On CUDA the published model at its 524,288 tokens a step is measured, elsewhere `french-5m`.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # this checkout, whatever is installed

import torch  # noqa: E402

from benchmarks.speed.loops import our_loop, random_batches  # noqa: E402
from benchmarks.speed.measuring import describe, result_path, write_result  # noqa: E402
from benchmarks.speed.throughput import (  # noqa: E402
    ceiling_of,
    compare_with_peer,
    measure_parts,
    measure_steps,
    shares,
)
from dimgpt.config import TrainingConfig  # noqa: E402
from dimgpt.presets import get_preset  # noqa: E402
from dimgpt.runtime import Runtime, choose_runtime  # noqa: E402


def read_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", help="whose model and global batch; by default, by device")
    parser.add_argument("--batch-size", type=int, help="sequences per micro-batch")
    parser.add_argument("--runs", type=int, default=5, help="steps timed on each side")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--write", action="store_true", help="keep the result")
    return parser.parse_args()


def measure(arguments: argparse.Namespace, runtime: Runtime) -> dict[str, Any]:
    """Measure all figures of this script."""
    is_cuda = runtime.device.type == "cuda"
    preset = get_preset(arguments.preset or ("dimensiongpt-0.2b" if is_cuda else "french-5m"))
    config = _settings(preset.pretraining, arguments)
    ceiling = ceiling_of(runtime)
    batches = random_batches(preset.model, config, runtime)
    loop = our_loop(preset.model, config, runtime)
    steps = measure_steps(loop, batches, runs=arguments.runs)
    return {
        "benchmark": "training_throughput",
        **describe(runtime),
        "model": preset.name,
        "batch_size": config.batch_size,
        "accumulation_steps": config.accumulation_steps,
        "is_compiled": arguments.compile,
        "clock": "wall" if is_cuda else "processor time of all threads",
        **steps,
        **shares(steps["tokens_per_second"], preset.model, ceiling),
        "parts": measure_parts(loop, loop.model, batches, runs=arguments.runs),
        "peer": "transformers MistralForCausalLM, sdpa",
        "beside_the_peer": compare_with_peer(preset.model, config, runtime, runs=arguments.runs),
    }


def _settings(config: TrainingConfig, arguments: argparse.Namespace) -> TrainingConfig:
    batch_size = arguments.batch_size or config.batch_size
    if config.sequences_per_step % batch_size:
        raise SystemExit(
            f"--batch-size is {batch_size}: it must divide {config.sequences_per_step}"
        )
    return dataclasses.replace(
        config,
        batch_size=batch_size,
        accumulation_steps=config.sequences_per_step // batch_size,
        use_compile=arguments.compile,
    )


def main() -> None:
    """Measure and print."""
    arguments = read_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    result = measure(arguments, choose_runtime(arguments.precision))
    for name, value in result.items():
        print(f"{name:40} {value}")
    print(json.dumps(result))
    if arguments.write:
        write_result(result, result_path(result, f"training-throughput-{result['model']}"))


if __name__ == "__main__":
    main()
