import numpy as np
import pytest

from dimgpt.evaluation import overlap
from dimgpt.evaluation.overlap import RUN_TOKENS, find_copied

RANDOM = np.random.default_rng(0)


def draw(count, vocab_size=500):
    return RANDOM.integers(0, vocab_size, count).astype(np.uint16)


def naive(text, parts):
    runs = {
        tuple(part[start : start + RUN_TOKENS].tolist())
        for part in parts
        for start in range(len(part) - RUN_TOKENS + 1)
    }
    mask = np.zeros(len(text), dtype=bool)
    for start in range(len(text) - RUN_TOKENS + 1):
        if tuple(text[start : start + RUN_TOKENS].tolist()) in runs:
            mask[start : start + RUN_TOKENS] = True
    return mask


@pytest.mark.parametrize("vocab_size", [2, 5, 500])
def test_the_copied_tokens_are_those_that_a_plain_search_finds(vocab_size, monkeypatch):
    monkeypatch.setattr(overlap, "_BLOCK_TOKENS", 64)  # runs lie across blocks
    parts = [draw(400, vocab_size), draw(150, vocab_size), draw(7, vocab_size)]
    texts = [
        np.concatenate([draw(9, vocab_size), parts[0][50:90], draw(5, vocab_size)]),
        parts[1].copy(),
        np.concatenate([parts[0][10:29], draw(30, vocab_size)]),
        draw(60, vocab_size),
        draw(3, vocab_size),
    ]
    found = find_copied(texts, parts)
    for mask, text in zip(found, texts, strict=True):
        assert mask.tolist() == naive(text, parts).tolist()
    assert found[1].all()
    assert not found[-1].any()


def test_a_run_of_19_tokens_does_not_count_and_one_of_20_does():
    part = draw(100)
    foreign = np.full(5, 600, dtype=np.uint16)
    for length, expected in ((19, 0), (20, 20), (21, 21)):
        text = np.concatenate([foreign, part[30 : 30 + length], foreign])
        assert find_copied([text], [part])[0].sum() == expected


def test_large_ids_and_nothing_to_look_for_are_fine():
    part = draw(100, 60_000).astype(np.uint32) + 100_000
    assert find_copied([part.astype(np.int64)], [part])[0].all()
    assert find_copied([], [part]) == []
    [mask] = find_copied([part], [])
    assert not mask.any()
