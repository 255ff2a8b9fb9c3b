"""Claim: pretraining batches from a token file of many parts take no more time than from one.

Both sides read the same tokens, in one part and in many parts of equal size, by turns.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from reporting import report, spread

from dimgpt.config import SourceConfig
from dimgpt.data.reading.pretraining import Corpus, PretrainingData
from dimgpt.data.token_file import Manifest, write_manifest
from dimgpt.data.token_writer import TokenFileWriter, join_parts

_FINGERPRINT = "f" * 64
_NUM_DOCUMENTS, _MEAN_TOKENS, _VOCAB_SIZE = 40_000, 1_200, 32_000


def write_source(folder: Path, *, num_parts: int) -> None:
    """Write the same random documents in `num_parts` parts."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    lengths = generator.integers(2, 2 * _MEAN_TOKENS, size=_NUM_DOCUMENTS)
    files = {}
    for name in ("train", "validation"):
        pieces = []
        for number, part in enumerate(np.array_split(lengths, num_parts)):
            ids = generator.integers(_VOCAB_SIZE, size=part.sum()).astype(np.uint16)
            with TokenFileWriter(folder, f"{name}-{number:05}", vocab_size=_VOCAB_SIZE) as writer:
                writer.write_documents(ids, part, num_characters=1, num_bytes=1)
            pieces.append((writer.index_path, writer.summary))
        files[name] = join_parts(folder, name, pieces)
    manifest = Manifest(
        vocabulary_sha256=_FINGERPRINT,
        vocab_size=_VOCAB_SIZE,
        source={},
        dropped={},
        files=files,
    )
    write_manifest(folder, manifest)


def open_data(folder: Path) -> PretrainingData:
    """Open the batches of 16 × 512 tokens, as in the published model."""
    source = SourceConfig(name=folder.name, path="x")
    corpus = Corpus.open(folder.parent, [source], _FINGERPRINT)
    return PretrainingData(corpus, context_length=512, batch_size=16, accumulation_steps=1, seed=0)


def main() -> None:
    """Time batches from 1 part and from 900, by turns."""
    with tempfile.TemporaryDirectory() as name:
        data = {}
        for num_parts in (1, 900):
            folder = Path(name) / f"parts-{num_parts}"
            write_source(folder, num_parts=num_parts)
            data[num_parts] = open_data(folder)
        seconds: dict[int, list[float]] = {num_parts: [] for num_parts in data}
        for step in range(400):
            for num_parts, batches in data.items():
                start = time.perf_counter()
                batches.batches(step)
                seconds[num_parts].append(time.perf_counter() - start)
    milliseconds = {
        f"milliseconds_{num_parts}_parts": spread([1e3 * value for value in values[50:]], digits=3)
        for num_parts, values in seconds.items()
    }
    ratio = np.median(seconds[900][50:]) / np.median(seconds[1][50:])
    report("batches", {"tokens": 16 * 512, **milliseconds, "ratio": round(float(ratio), 2)})


if __name__ == "__main__":
    main()
