"""Model folders that are not what they say, and adapters or formats that do not fit theirs."""

import json
import resource
import shutil
import time
from pathlib import Path

import pytest
import torch

from dimgpt.config import LoraConfig, ModelConfig
from dimgpt.model.lora import add_adapters
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.models import open_model
from dimgpt.runtime import choose_runtime
from dimgpt.text.byte_level import LILLM_SPECIAL_TOKENS, train_byte_level
from dimgpt.text.chat_format import CHAT_FORMATS
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.special_tokens import SPECIAL_TOKENS
from dimgpt.weights.adapter import AdapterBase, fingerprint_base
from dimgpt.weights.store import load_model, save_model

ROOT = Path(__file__).parents[2]
CPU = choose_runtime("fp32", "cpu")
MAX_SECONDS, MAX_BYTES = 1.0, 500_000_000
TEXTS = ["user and assistant sat on the mat, a b c"] * 3
CHATML_TOKENS = ("<|endoftext|>", *CHAT_FORMATS["chatml"].special_tokens)
TOKENIZERS = {
    "dimensiongpt": GreedyTokenizer([*SPECIAL_TOKENS, *"abcdefgh"]),
    "lillm": train_byte_level(TEXTS, 280, special_tokens=LILLM_SPECIAL_TOKENS),
    "chatml": train_byte_level(TEXTS, 265, special_tokens=CHATML_TOKENS),
}
SHAPE = {"embedding_dim": 16, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "ffn_dim": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = GreedyTokenizer.load(ROOT / "tests/fixtures/dimensiongpt_sampling/vocab_512.txt")
    folder = tmp_path_factory.mktemp("models") / "toy"
    save_model(Transformer(ModelConfig(vocab_size=512, **SHAPE)), folder, tokenizer)
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


@pytest.mark.parametrize(
    "name", ["token_embedding.weight", "blocks.1.attention.query.weight", "final_norm.weight"]
)
def test_adapters_of_a_base_of_other_weights_are_refused_with_both_hashes(tmp_path, name, fault):
    tokenizer = TOKENIZERS["dimensiongpt"]
    model = Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, **SHAPE))
    save_model(model, tmp_path / "toy", tokenizer)
    before = fingerprint_base(model)
    add_adapters(model, LoraConfig(rank=2))
    base = AdapterBase(name="toy", sha256=before, lora=model.lora)
    save_model(model, tmp_path / "toy-chat", tokenizer, base=base)
    assert open_model(tmp_path / "toy-chat", runtime=CPU)
    other = load_model(tmp_path / "toy")
    with torch.no_grad():
        other.get_parameter(name).view(-1)[0] += 1e-6
    save_model(other, tmp_path / "toy", tokenizer)
    with pytest.raises(ValueError, match=f"{before} -> {fingerprint_base(other)}"):
        open_model(tmp_path / "toy-chat", runtime=CPU)
    fault(28)


@pytest.mark.parametrize("asked_for", CHAT_FORMATS)
@pytest.mark.parametrize("own", TOKENIZERS)
def test_a_chat_format_whose_tokens_are_missing_is_refused_with_both(
    tmp_path, own, asked_for, fault
):
    tokenizer, folder = TOKENIZERS[own], tmp_path / "toy"
    save_model(
        Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, **SHAPE)), folder, tokenizer
    )
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "chat_format": asked_for}))
    if asked_for == own:
        assert open_model(folder, runtime=CPU)[1].chat.format.name == own
        return
    with pytest.raises(ValueError, match=f"chat format '{asked_for}' is written with ") as error:
        open_model(folder, runtime=CPU)
    lacking, present = str(error.value).split("the special tokens of this tokenizer are")
    assert CHAT_FORMATS[asked_for].special_tokens[0] in lacking
    assert all(name in present for name in CHAT_FORMATS[own].special_tokens)
    fault(28)
