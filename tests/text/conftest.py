import json
from pathlib import Path

import pytest

from dimgpt.text.greedy_tokenizer import GreedyTokenizer

FIXTURES_DIR = Path(__file__).parents[1] / "fixtures" / "dimensiongpt_tokenizer"
SHARED_DIR = Path(__file__).parents[2].parent / "shared" / "fixtures" / "dimensiongpt_tokenizer"


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    return FIXTURES_DIR


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    if not SHARED_DIR.is_dir():
        pytest.skip("the folder of shared fixtures does not stand beside this checkout")
    return SHARED_DIR


@pytest.fixture(scope="session")
def cases() -> list[dict]:
    """The original's cases; those with text from books only where the shared folder is."""
    folder = SHARED_DIR if SHARED_DIR.is_dir() else FIXTURES_DIR
    lines = (folder / "cases.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def tokenizer() -> GreedyTokenizer:
    """A vocabulary that holds the whole alphabet."""
    return GreedyTokenizer.load(FIXTURES_DIR / "vocab.txt")


@pytest.fixture(scope="session")
def small_tokenizer() -> GreedyTokenizer:
    """A vocabulary with 120 characters, so that unknown ones occur."""
    return GreedyTokenizer.load(FIXTURES_DIR / "vocab_nochars.txt")
