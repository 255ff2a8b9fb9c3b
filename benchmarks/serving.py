"""Claim: the API generates more tokens a second for many clients than for one, and mixes up none.

A server with random weights runs in its own process; the clients are those of the `openai` package.
First 1, 8 and 32 clients ask at the same time. Then 50 clients ask for a minute, and every third
one disconnects in the middle. Answers are compared with the answers to a single client, and the
memory of the server is measured.

    python benchmarks/serving.py --threads 1
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

import openai  # noqa: E402
import psutil  # noqa: E402
import torch  # noqa: E402

from benchmarks.reporting import report, spread  # noqa: E402
from dimgpt.model.transformer import Transformer  # noqa: E402
from dimgpt.presets import get_preset  # noqa: E402
from dimgpt.text.greedy_tokenizer import GreedyTokenizer  # noqa: E402
from dimgpt.text.special_tokens import SPECIAL_TOKENS  # noqa: E402
from dimgpt.weights.store import save_model  # noqa: E402

NUM_TOKENS = 64
NUM_PROMPTS = 20
CROWD = 50


@contextmanager
def server(preset: str, threads: int) -> Iterator[tuple[openai.AsyncOpenAI, psutil.Process]]:
    """Serve random weights of a preset's shape, and give a client and the server's process."""
    model = Transformer(get_preset(preset).model)
    names = [*SPECIAL_TOKENS, *(f"t{number}" for number in range(model.config.vocab_size))]
    tokenizer = GreedyTokenizer(names[: model.config.vocab_size])
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder) / "random", tokenizer)
        command = [sys.executable, "-m", "dimgpt", "serve", "--model", f"{folder}/random"]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "env": environment}
        with subprocess.Popen([*command, "--port", "0"], cwd=ROOT, **options) as process:
            assert process.stdout is not None
            address = process.stdout.readline().split()[3].rstrip(";")
            try:
                client = openai.AsyncOpenAI(base_url=address, api_key="none", timeout=300)
                yield client, psutil.Process(process.pid)
            finally:
                process.terminate()


async def write(client: openai.AsyncOpenAI, number: int) -> tuple[str, int]:
    """Return text and tokens of a request: its prompt follows from its number.

    Greedy: a draw may fall on the other side of a border that differs in its last digit.
    """
    prompt = [20 + number, 30, 40][: 1 + number % 3]
    answer = await client.completions.create(
        model="random", prompt=prompt, max_tokens=NUM_TOKENS, temperature=0
    )
    assert answer.usage is not None
    return answer.choices[0].text, answer.usage.completion_tokens


async def speed(client: openai.AsyncOpenAI, num_clients: int, num_rounds: int) -> float:
    """Return tokens a second of all clients together."""

    async def ask(number: int) -> int:
        return sum([(await write(client, number))[1] for _ in range(num_rounds)])

    begin = time.perf_counter()
    num_tokens = sum(await asyncio.gather(*map(ask, range(num_clients))))
    return num_tokens / (time.perf_counter() - begin)


async def crowd(client: openai.AsyncOpenAI, server: psutil.Process, seconds: float) -> Any:
    """Let many ask for a while; return counts, and the memory after a third and at the end."""
    expected = [(await write(client, number))[0] for number in range(NUM_PROMPTS)]
    counts, begin, memory = {"answers": 0, "left": 0, "wrong": 0}, time.perf_counter(), []

    async def ask(visitor: int) -> None:
        turn = visitor
        while (passed := time.perf_counter() - begin) < seconds:
            if passed > seconds / 3:
                memory.append(server.memory_info().rss)
            turn += 1
            number = turn % NUM_PROMPTS
            if visitor % 3 == 0:
                stream = await client.completions.create(
                    model="random", prompt=[20], max_tokens=NUM_TOKENS, stream=True
                )
                await anext(aiter(stream))
                await stream.close()
                counts["left"] += 1
            else:
                text, _ = await write(client, number)
                counts["answers"] += 1
                counts["wrong"] += text != expected[number]

    await asyncio.gather(*map(ask, range(CROWD)))
    return counts | {"memory_growth": round(memory[-1] / memory[0] - 1, 4)}


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure everything."""
    with server(arguments.preset, arguments.threads) as (client, process):
        await speed(client, 4, 1)  # warm
        rates: dict[int, list[float]] = {1: [], 8: [], 32: []}
        for _ in range(arguments.runs):
            for num_clients, found in rates.items():
                found.append(await speed(client, num_clients, max(1, 8 // num_clients)))
        alone = rates[1]
        return {
            "tokens_per_second": {key: spread(found, digits=1) for key, found in rates.items()},
            "against_one_client": {
                key: spread([many / one for many, one in zip(found, alone, strict=True)])
                for key, found in rates.items()
            },
            "crowd": await crowd(client, process, arguments.seconds),
        }


def main() -> None:
    """Measure, and print one JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="french-5m")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60, help="of the crowd")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true", help="keep the result")
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments))
    report("serving", {"preset": arguments.preset, "threads": arguments.threads, **found})


if __name__ == "__main__":
    main()
