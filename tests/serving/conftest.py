from pathlib import Path

import pytest

from dimgpt.config import ModelConfig
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.weights.originals import load_original

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="session")
def model():
    config = ModelConfig(
        vocab_size=512,
        context_length=64,
        window_size=16,
        embedding_dim=64,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        ffn_dim=170,
    )
    return load_original(FIXTURES / "dimensiongpt" / "tiny.pt", config).model.eval()


@pytest.fixture(scope="session")
def tokenizer():
    return GreedyTokenizer.load(FIXTURES / "dimensiongpt_sampling" / "vocab_512.txt")
