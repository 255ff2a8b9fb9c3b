"""The README's table of cards: each cell is what `info` computes."""

import re
from pathlib import Path

import pytest

from dimgpt.info import advise
from dimgpt.model.flops import num_parameters
from dimgpt.presets import PRESETS
from dimgpt.runtime import PEAK_FLOPS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
# The peaks of the first three are scaled from the RTX 3090 and 4090 by their cores and clocks.
CARDS = {
    "6 GB, RTX 3050 †": (6, 13e12),
    "8 GB, RTX 4060 †": (8, 30e12),
    "12 GB, RTX 3060 †": (12, 25e12),
    "16 GB, RTX 4080": (16, PEAK_FLOPS["RTX 4080"]),
    "24 GB, RTX 4090": (24, PEAK_FLOPS["RTX 4090"]),
}


def batch_size(preset, memory):
    """Return the rows that fit by the rule of `docs/training.md`, a power of two."""
    model = preset.model
    width = 20 * model.embedding_dim + 8 * model.ffn_dim + 8 * model.kv_dim
    row = model.context_length * model.num_layers * width
    room = 0.8 * memory - 16 * num_parameters(model)
    size = preset.pretraining.batch_size
    while size * row > room:
        size //= 2
    return size


def row(card, name):
    memory, flops = CARDS[card]
    preset = PRESETS[name]
    size = batch_size(preset, memory * 2**30)
    passes = preset.pretraining.sequences_per_step // size
    advice = advise(preset, memory=memory * 2**30, disk=float("inf"), flops=flops)
    time = re.fullmatch("fits; pretraining takes about (.+) here", advice)[1]
    return f"| {card} | `{name}` | {size} × {passes} | {time} | computed |"


def test_the_table_of_cards_is_what_info_computes():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = ("lillm-39m", "dimensiongpt-0.2b-modern")
    rows = [row(card, name) for card in CARDS for name in names]
    shown = re.findall(r"^\|.*\| computed \|$", readme, re.MULTILINE)
    assert set(shown) <= set(rows)
    assert all(any(f"| {card} |" in line for line in shown) for card in CARDS)
