"""Counts the faults that were injected, and shows them as the table that `make faults` prints."""

from collections import Counter

import pytest
from browsing import browser, page, page_address
from served import address, model, slow_steps, tokenizer, written
from toy_training import config, make_trainer, one_thread

__all__ = ["address", "browser", "model", "page", "page_address", "slow_steps", "tokenizer"]
__all__ += ["config", "make_trainer", "one_thread", "written"]

ROWS = {
    1: ("SIGKILL before each file operation of a preparation", 110),
    2: ("SIGKILL at random times in a preparation", 30),
    3: ("disk full in a preparation", 12),
    4: ("a token file that is cut short, flipped, zero-tailed or swapped", 240),
    5: ("a token id outside the vocabulary, or too large for its type", 20),
    6: ("another vocabulary of the right size", 4),
    7: ("a download that is cut, stalled, refused, or brings other data", 16),
    8: ("worker processes killed in a preparation", 3),
    9: ("SIGKILL at random times in a training", 40),
    10: ("SIGKILL before each file operation of a save", 41),
    11: ("the newest checkpoint cut short, flipped, zeroed or without a file", 60),
    12: ("disk full while a training saves", 10),
    13: ("SIGTERM in a training", 5),
    14: ("a checkpoint of another model, vocabulary, data or adapters", 13),
    15: ("two trainings in one folder", 3),
    16: ("a malicious pickle, array, zip or link, which never runs", 50),
    17: ("fuzzed safetensors, weights that are not finite", 300),
    18: ("files in which the gate finds no unsafe load, eval, or output", 150),
    19: ("NaN, infinity or a spike in a loss or in a gradient", 57),
    20: ("memory that runs out in a training", 18),
    21: ("the stop button of a notebook, pressed once or twice", 12),
    22: ("NUL, surrogates, emoji and words of 1 MB for the tokenizers", 500),
    23: ("special tokens in text, history, documents and conversations", 2_000),
    24: ("sampler settings out of range or extreme, prompts of any length", 246),
    25: ("script injection, large bodies, foreign names, more clients than places", 15),
    26: ("a folder of one's own: hidden files, links, one document, encodings", 12),
    27: ("broken conversations in thirteen formats", 60),
    28: ("another optimizer's state, another base model, a format without tokens", 13),
    29: ("answers of the API to fifty clients, a third of whom go away", 165),
    30: ("a preparation on several workers, killed, resumed with others", 20),
    31: ("a model folder whose config asks for more than its file holds", 8),
    32: ("an export that transformers has loaded and saved again", 4),
    33: ("a learning rate that falls to 0 before the run ends", 12),
    34: ("standard output or error closed, as under cron", 8),
    35: ("use_compile where there is no compiler", 2),
    36: ("a byte flipped in any file that a model comes from", 30),
}
"""Number of a fault -> what it is, and how many are injected at least."""


@pytest.fixture
def fault(record_property):
    """Return a function that counts injections of a row whose outcome was the expected one."""

    def count(row, number=1):
        record_property("fault", [row, number])

    return count


def pytest_terminal_summary(terminalreporter):
    reached = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == "fault":
                reached[value[0]] += value[1]
    if not reached:
        return
    terminalreporter.section("faults")
    for row, (name, number) in ROWS.items():
        sign = "ok" if reached[row] >= number else "MISSING"
        terminalreporter.write_line(f"{row:3} {name:70} {reached[row]:4} of {number:4} {sign}")
    num_whole = sum(reached[row] >= number for row, (_, number) in ROWS.items())
    terminalreporter.write_line(f"faults: {num_whole} of {len(ROWS)} rows")
