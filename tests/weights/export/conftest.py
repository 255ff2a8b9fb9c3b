from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.text.byte_level import ByteLevelTokenizer, train_byte_level
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.weights.originals import load_original

FIXTURES = Path(__file__).parents[2] / "fixtures"
TINY = ModelConfig(
    vocab_size=512,
    context_length=64,
    window_size=16,
    embedding_dim=64,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    ffn_dim=170,
)
TOYGPT_PARTS = {
    "norm": "layer",
    "positions": "sinusoidal",
    "feed_forward": "gelu",
    "use_biases": True,
    "use_final_norm": False,
}


@pytest.fixture(scope="session")
def tiny_model() -> Transformer:
    """The original's tiny weights; the context is longer than theirs, which changes no weight."""
    path = FIXTURES / "dimensiongpt" / "tiny.pt"
    return load_original(path, replace(TINY, context_length=256)).model


@pytest.fixture(scope="session")
def tokenizer() -> GreedyTokenizer:
    return GreedyTokenizer.load(FIXTURES / "dimensiongpt_sampling" / "vocab_512.txt")


@pytest.fixture(scope="session")
def llama_tokenizer() -> ByteLevelTokenizer:
    texts = ["The cat sat on the mat, and the dog did not.", "user assistant 123 été\n\n"] * 4
    return train_byte_level(texts, 300, first_space=True)


@pytest.fixture(scope="session")
def llama_model() -> Transformer:
    """A model in the shape of lilLM: no window, another epsilon."""
    return new_model(vocab_size=300, window_size=None, norm_eps=1e-6, ffn_dim=128)


@pytest.fixture(scope="session")
def toygpt_model() -> Transformer:
    return new_model(num_kv_heads=4, window_size=None, **TOYGPT_PARTS)


@pytest.fixture(scope="session")
def qwen_model() -> Transformer:
    """A model with normalised queries and keys, and with a layer that has no window."""
    return new_model(qk_norm=True, attention_pattern=("window", "full"))


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Transformer]:
    return new_model


def new_model(**changes: object) -> Transformer:
    """A model with weights large enough to tell tokens apart, and channels in norms of heads."""
    torch.manual_seed(0)
    model = Transformer(replace(TINY, init_std=0.1, **changes)).eval()
    for name, weight in model.named_parameters():
        if name.endswith(("query_norm.weight", "key_norm.weight")):
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    return model
