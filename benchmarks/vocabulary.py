"""Claim: a vocabulary of 32,000 tokens from 300 M characters takes 3 minutes and 3 GB at most.

Each size (millions of characters, by default 10 and 50) is trained in its own process, to measure
its peak memory. The texts are repeated until they are long enough. Prints one JSON line; with
`--write`, also saves it in benchmarks/results/.

    python benchmarks/vocabulary.py 50 150 --write
"""

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Iterator
from itertools import cycle

from reporting import report
from texts import load_documents

from dimgpt.text.tokenizer_trainer import train_vocabulary

DEFAULT_SIZES = (10, 50)


def repeat_up_to(documents: list[str], num_characters: int) -> Iterator[str]:
    """Yield documents repeatedly until they have `num_characters` characters."""
    for document in cycle(documents):
        if num_characters <= 0:
            return
        yield document
        num_characters -= len(document)


def measure(millions: int) -> dict[str, float]:
    """Train one vocabulary; return its seconds, on the clock and of the processor, and memory."""
    name, documents = load_documents()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, processor_start = time.perf_counter(), time.process_time()
    vocab_size = 32_000 if "books" in name else 1_000
    train_vocabulary(repeat_up_to(documents, millions * 1_000_000), vocab_size)
    return {
        "million_characters": millions,
        "vocab_size": vocab_size,
        "seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(time.process_time() - processor_start, 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
        "texts_mb": round(before / 1e3),
    }


def main() -> None:
    """Measure and print."""
    sizes = [int(argument) for argument in sys.argv[1:] if argument.isdigit()] or DEFAULT_SIZES
    load = os.getloadavg()[0]
    context = multiprocessing.get_context("spawn")
    runs = []
    for millions in sizes:
        with context.Pool(1) as pool:
            runs.append(pool.apply(measure, (millions,)))
    report("vocabulary", {"load_before": load, "runs": runs})


if __name__ == "__main__":
    main()
