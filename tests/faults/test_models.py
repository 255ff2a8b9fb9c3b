"""Model folders that are not what they say."""

import json
import resource
import shutil
import time
from pathlib import Path

import pytest

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.weights.store import load_model, save_model

ROOT = Path(__file__).parents[2]
MAX_SECONDS, MAX_BYTES = 1.0, 500_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = GreedyTokenizer.load(ROOT / "tests/fixtures/dimensiongpt_sampling/vocab_512.txt")
    shape = {"embedding_dim": 16, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "ffn_dim": 8}
    folder = tmp_path_factory.mktemp("models") / "toy"
    save_model(Transformer(ModelConfig(vocab_size=512, **shape)), folder, tokenizer)
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"embedding_dim": 60_000_000},
        {"num_layers": 10**9},
        {"vocab_size": 2 * 10**9},
        {"ffn_dim": 10**9},
        {"num_heads": 8},
        {"num_experts": 100_000},
        {"use_value_embeddings": True},
        {"tie_embeddings": False},
    ],
    ids=str,
)
def test_a_config_that_asks_for_more_than_the_file_is_refused_at_once(
    folder, tmp_path, change, fault
):
    larger = tmp_path / "larger"
    shutil.copytree(folder, larger)
    content = json.loads((larger / "config.json").read_text())
    content["model"].update(change)
    (larger / "config.json").write_text(json.dumps(content))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    begin = time.perf_counter()
    with pytest.raises(ValueError, match="does not fit its config"):
        load_model(larger)
    assert time.perf_counter() - begin < MAX_SECONDS
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert grown < MAX_BYTES
    fault(31)
