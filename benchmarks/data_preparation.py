"""Claim: on one core, cleaning + encoding + writing is four times as fast as the original's way.

Both sides encode the same texts alternately in one process. Our side has not seen these texts
before, and its cache of words is full of other words, as in a long run ("first_mb_per_s" is the
speed while the cache fills). The baseline is our own plain implementation of the original's way
(`plain_encoding`). The peer is Hugging Face's WordPiece, which gives the same ids, on cleaned text.

Prints one JSON line; with `--write`, also keeps it in benchmarks/results/.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from plain_encoding import encode_plainly
from reporting import report, spread
from texts import load_documents

from dimgpt.config import DataConfig, SourceConfig
from dimgpt.data.preparing.preparation import prepare_source
from dimgpt.text.cleaning import normalize_text
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.special_tokens import NEW_LINE, TAB
from dimgpt.text.tokenizer_trainer import train_vocabulary

REPEATS = 5
SLICE_CHARACTERS = 2_000_000
_NUM_COPIES = 16
PATTERN = r" ?\p{L}+| ?[^\p{L}0-9 \t\n]+| ?[0-9]+|[\t\n]| +(?= [^ \t\n])| +"
Encode = Callable[[str], np.ndarray]


def megabytes(documents: Sequence[str]) -> float:
    """Return the size of texts in UTF-8, in millions of bytes."""
    return sum(len(document.encode()) for document in documents) / 1e6


def cut_slices(documents: list[str]) -> Iterator[list[str]]:
    """Cut the end of a list of documents into slices to measure on."""
    for _ in range(REPEATS):
        size, chosen = 0, []
        while size < SLICE_CHARACTERS and documents:
            chosen.append(documents.pop())
            size += len(chosen[-1])
        yield chosen


def speed_of(encode: Encode, documents: Sequence[str]) -> tuple[float, np.ndarray]:
    """Return MB/s of processor time of encoding and writing documents, and the ids."""
    with tempfile.TemporaryFile() as file:
        start = time.process_time()
        for document in documents:
            file.write(encode(document).tobytes())
        file.flush()
        seconds = time.process_time() - start
        file.seek(0)
        ids = np.frombuffer(file.read(), dtype=encode("").dtype)
    return megabytes(documents) / seconds, ids


def compare(sides: dict[str, Encode], slices: Sequence[list[str]]) -> dict[str, Any]:
    """Return each side's MB/s, and how many times faster the second is than the first."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for documents in slices:
        results = {name: speed_of(encode, documents) for name, encode in sides.items()}
        expected, *others = (ids for _, ids in results.values())
        assert all(np.array_equal(expected, ids) for ids in others), "the ids differ"
        for name, (speed, _) in results.items():
            speeds[name].append(speed)
    slow, fast = speeds.values()
    ratios = [b / a for a, b in zip(slow, fast, strict=True)]
    return {
        **{f"{name}_mb_per_s": spread(values) for name, values in speeds.items()},
        "ratio": spread(ratios),
    }


def wordpiece(tokenizer: GreedyTokenizer) -> Encode:
    """Return Hugging Face's encoding of cleaned text with a vocabulary."""
    ids = {token: id for id, token in enumerate(tokenizer.tokens)}
    ids |= {"\t": ids[TAB], "\n": ids[NEW_LINE]}
    model = tokenizers.models.WordPiece(
        ids,
        unk_token=tokenizer.tokens[0],
        max_input_chars_per_word=10**9,
        continuing_subword_prefix="",
    )
    peer = tokenizers.Tokenizer(model)
    peer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated")
    return lambda text: np.array(peer.encode(text).ids, dtype=tokenizer.dtype)


def processes(documents: Sequence[str], tokens: Sequence[str]) -> dict[str, Any]:
    """Return the seconds of a complete preparation in one process and in two, and their ratio.

    Each begins with a tokenizer whose cache is empty, as in a worker. The texts are repeated
    several times, to about a minute of work. So the start of the workers (0.5 s) and the first
    encoding of each word matter as little as in hours of a real source.
    """
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "documents.jsonl"
        lines = "".join(json.dumps({"text": text}) + "\n" for text in documents)
        path.write_text(lines * _NUM_COPIES)
        source = SourceConfig(name="documents", path=str(path))
        for repeat in range(3):
            for num_workers, measured in seconds.items():
                config = DataConfig(num_workers=num_workers)
                target = Path(folder) / f"{num_workers}-{repeat}"
                tokenizer = GreedyTokenizer(tokens)
                start = time.perf_counter()
                prepare_source(source, tokenizer, target, config=config)
                measured.append(time.perf_counter() - start)
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    return {
        "megabytes": round(_NUM_COPIES * megabytes(documents), 1),
        "seconds_in_1": spread(seconds[1]),
        "seconds_in_2": spread(seconds[2]),
        "ratio": spread(ratios),
    }


def main() -> None:
    """Measure and print."""
    name, documents = load_documents()
    everything = list(documents)
    slices = list(cut_slices(documents))
    tokenizer = GreedyTokenizer(train_vocabulary(documents, 32_000 if "books" in name else 1_000))
    ids = {token: id for id, token in enumerate(tokenizer.tokens)}
    first_speed, _ = speed_of(tokenizer.encode_array, documents)
    cleaned = [[normalize_text(document) for document in documents] for documents in slices]
    report(
        "data_preparation",
        {
            "texts": name,
            "vocab_size": tokenizer.vocab_size,
            "load_before": os.getloadavg()[0],
            "first_mb_per_s": round(first_speed, 2),
            "cleaning_encoding_writing": compare(
                {
                    "original": lambda text: np.array(encode_plainly(text, ids), tokenizer.dtype),
                    "dimgpt": tokenizer.encode_array,
                },
                slices,
            ),
            "encoding_of_clean_text": compare(
                {
                    "wordpiece": wordpiece(tokenizer),
                    "dimgpt": lambda text: tokenizer.encode_array(text, clean=False),
                },
                cleaned,
            ),
            "processes": processes(everything, tokenizer.tokens),
        },
    )


if __name__ == "__main__":
    main()
