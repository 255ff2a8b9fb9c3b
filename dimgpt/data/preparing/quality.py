"""Decides which documents to drop: too long, in another language, or copies of earlier ones.

Workers call `reason_to_drop` and `duplicate_keys`, which are pure functions of one document. The
parent process drops copies in the order of the documents (`Deduplicator`). So the result depends
neither on the number of processes nor on the blocks. Two copies share a key: a hash of the complete
text, or of a band of its MinHash. Broder 1997, "On the resemblance and containment of documents",
https://doi.org/10.1109/SEQUEN.1997.666900.
"""

import functools
import hashlib
import re
import zlib
from typing import Any

import numpy as np

from dimgpt.config import QualityConfig

TOO_LONG = "too_long"
LANGUAGE = "language"
EXACT_DUPLICATE = "exact_duplicate"
NEAR_DUPLICATE = "near_duplicate"

Keys = np.ndarray[Any, Any]
"""Keys of documents, uint64 (N, K)."""

_LANGUAGE_CHARACTERS = 2_000
_RUN_WORDS = 5
_MAX_PERMUTATIONS = 128
# Two documents of similarity `near_duplicate_similarity` share a key with this probability.
_RECALL = 0.9
# Only the beginning of longer documents is compared, to limit the memory of a worker.
_MAX_CHARACTERS = 1_000_000
_BLOCK_RUNS = 1 << 12
_WORD = re.compile(r"\w+")


def reason_to_drop(text: str, config: QualityConfig) -> str | None:
    """Return the reason to drop a document, or `None` to keep it; duplicates are not looked for.

    The text must not be cleaned yet, because cleaning would hide the language. The language is
    identified from the first 2,000 characters, among all 140 that `py3langid` knows: with fewer to
    choose from, Occitan or Haitian Creole would be taken for French.

    Raises:
        ImportError: `py3langid` is needed and not installed.
        ValueError: `py3langid` does not know one of the languages.
    """
    if config.max_characters is not None and len(text.strip()) > config.max_characters:
        return TOO_LONG
    if config.languages:
        identifier = _language_identifier()
        if unknown := set(config.languages).difference(identifier.labels):
            raise ValueError(
                f"languages is {config.languages}: {', '.join(sorted(unknown))} is unknown; "
                f"choose from {' '.join(sorted(identifier.labels))}"
            )
        language, _ = identifier.classify(text.lstrip()[:_LANGUAGE_CHARACTERS])
        if language not in config.languages:
            return LANGUAGE
    return None


def num_duplicate_keys(config: QualityConfig) -> int:
    """Return how many keys a document has, K; 0 if copies are not dropped."""
    num_bands, _ = _bands(config.near_duplicate_similarity)
    return config.drop_exact_duplicates + config.drop_near_duplicates * num_bands


def duplicate_keys(text: str, config: QualityConfig) -> Keys:
    """Return the keys that a document shares with its copies, uint64 (K,), from its cleaned text.

    An exact copy has the same cleaned text. Near copies are compared by their runs of five words,
    without case and punctuation, in the first million characters. Documents whose sets of runs
    overlap (intersection over union) by `near_duplicate_similarity` share a key nine times in ten;
    with much less overlap, hardly ever. The keys are the same on every machine.

    Raises:
        ImportError: `datasketch` is needed and not installed.
    """
    keys = []
    if config.drop_exact_duplicates:
        keys.append(_hash(b"text", text.encode(errors="surrogatepass")))
    if config.drop_near_duplicates:
        num_bands, num_rows = _bands(config.near_duplicate_similarity)
        sketch = _empty_sketch(num_bands * num_rows).copy()
        runs = _word_runs(text[:_MAX_CHARACTERS])
        for start in range(0, len(runs), _BLOCK_RUNS):
            sketch.update_batch(runs[start : start + _BLOCK_RUNS].tolist())
        bands = sketch.hashvalues.astype("<u4").reshape(num_bands, num_rows)
        keys += [_hash(f"{band}".encode(), row.tobytes()) for band, row in enumerate(bands)]
    return np.array(keys, dtype=np.uint64)


class Deduplicator:
    """Keeps the first of each group of copies, in the order of the documents.

    A document is dropped if it shares a key with a kept one. The keys of the kept documents are
    held in sorted arrays: 8 bytes a key (a set takes 60), and 16 while two arrays are merged.
    """

    def __init__(self, config: QualityConfig) -> None:
        self.config = config
        self._num_keys = num_duplicate_keys(config)
        self._runs: list[Keys] = []

    def reasons(self, keys: Keys) -> list[str | None]:
        """Return why to drop each of the next documents; `None` keeps and remembers it.

        `keys` are the `duplicate_keys` of each, uint64 (N, K). The number of documents per call
        does not change the result.
        """
        self._check(keys)
        values, places, counts = np.unique(keys, return_inverse=True, return_counts=True)
        places = places.reshape(keys.shape)
        known = self._is_known(values)[places]
        reasons: list[str | None] = [None] * len(keys)
        taken: set[int] = set()
        # A row whose keys are all new and occur once is kept, and no other row depends on it.
        for index in np.flatnonzero((known | (counts[places] > 1)).any(axis=1)).tolist():
            row = keys[index].tolist()
            shared = [key in taken or found for key, found in zip(row, known[index], strict=True)]
            if any(shared):
                is_exact = self.config.drop_exact_duplicates and shared[0]
                reasons[index] = EXACT_DUPLICATE if is_exact else NEAR_DUPLICATE
            else:
                taken.update(row)
        self.add(keys[np.array([reason is None for reason in reasons], dtype=bool)])
        return reasons

    def add(self, keys: Keys) -> None:
        """Remember documents that an earlier run kept, (N, K), to continue it."""
        self._check(keys)
        if not keys.size:
            return
        run = np.unique(keys)
        # Each array is at least twice as long as the next: few arrays, and few merges per key.
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.concatenate([self._runs.pop(), run])
            run.sort(kind="stable")
        self._runs.append(run)

    def _check(self, keys: Keys) -> None:
        if keys.shape[1:] != (self._num_keys,) or keys.dtype != np.uint64:
            raise ValueError(
                f"keys are {keys.dtype} {keys.shape}: they must be uint64 (N, {self._num_keys}), "
                "made by duplicate_keys with the same settings"
            )

    def _is_known(self, values: Keys) -> np.ndarray[Any, Any]:
        """Return which of the sorted keys a kept document has."""
        is_known = np.zeros(len(values), dtype=bool)
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, values), len(run) - 1)
            is_known |= run[places] == values
        return is_known


@functools.cache
def _bands(similarity: float) -> tuple[int, int]:
    """Return bands and rows of the sharpest MinHash that finds `similarity` with `_RECALL`.

    Two texts of similarity s share a given band of r rows with probability s^r.
    """
    for num_rows in range(_MAX_PERMUTATIONS, 0, -1):
        num_bands = int(np.ceil(np.log(1 - _RECALL) / np.log1p(-(similarity**num_rows))))
        if num_bands * num_rows <= _MAX_PERMUTATIONS:
            return num_bands, num_rows
    raise AssertionError(similarity)


def _word_runs(text: str) -> np.ndarray[Any, Any]:
    """Return a 32-bit hash of each run of words; a text of fewer words is one run."""
    words = _WORD.findall(text.lower().encode(errors="replace").decode()) or [repr(text)]
    encoded = map(str.encode, words)
    hashes = np.fromiter(map(zlib.crc32, encoded), dtype=np.uint64, count=len(words))
    length = min(_RUN_WORDS, len(hashes))
    num_runs = len(hashes) - length + 1
    runs = np.zeros(num_runs, dtype=np.uint64)
    for place in range(length):  # wraps around at 2^64
        runs = runs * np.uint64(0x9E3779B97F4A7C15) + hashes[place : place + num_runs]
    return (runs ^ (runs >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(32)


def _hash(kind: bytes, content: bytes) -> int:
    """Return 64 bits; equal contents of two kinds get different hashes."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, person=kind).digest(), "little")


@functools.cache
def _empty_sketch(num_permutations: int) -> Any:
    try:
        from datasketch import MinHash
    except ImportError as error:
        raise ImportError(
            "drop_near_duplicates needs datasketch: run `pip install datasketch==2.0.0`, or turn "
            "the setting off"
        ) from error
    return MinHash(num_permutations, seed=1, hashfunc=int, scheme="affine32")


@functools.cache
def _language_identifier() -> Any:
    """Load the model once per process, in half a second."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ImportError(
            "languages needs py3langid: run `pip install py3langid==0.4.0`, or leave languages "
            "empty"
        ) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE)
