"""Exports that another program has opened, changed and saved again."""

from pathlib import Path

import pytest
import torch

from dimgpt.config import ExportConfig, ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.models import export, import_model, open_model
from dimgpt.runtime import choose_runtime
from dimgpt.text.byte_level import train_byte_level
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.weights.store import save_model

pytestmark = pytest.mark.slow
VOCABULARY = Path(__file__).parents[1] / "fixtures" / "dimensiongpt_sampling" / "vocab_512.txt"
TEXT = "Le chat dort, « puis » il mange 12 pommes."


@pytest.mark.parametrize("is_trained", [False, True], ids=["saved", "trained"])
@pytest.mark.parametrize("kind", ["greedy", "byte-level"])
def test_an_export_that_transformers_has_saved_again_comes_back(tmp_path, kind, is_trained, fault):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizer = GreedyTokenizer.load(VOCABULARY)
    if kind == "byte-level":
        tokenizer = train_byte_level([TEXT] * 20, 300)
    shape = {"embedding_dim": 16, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "ffn_dim": 8}
    model = Transformer(
        ModelConfig(vocab_size=tokenizer.vocab_size, context_length=32, window_size=8, **shape)
    )
    save_model(model, tmp_path / "toy", tokenizer)
    folder = export(tmp_path / "toy", ExportConfig(target="transformers"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    if is_trained:
        optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
        for _ in range(3):
            ids = torch.randint(10, tokenizer.vocab_size, (2, 16))
            theirs(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    again = tmp_path / "again"
    theirs.save_pretrained(again)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(again)
    assert not (again / "vocab.txt").exists()

    back = import_model(again, models_root=tmp_path / "models", name="back")
    ours, its_tokenizer = open_model(back, runtime=choose_runtime(device="cpu"))
    assert its_tokenizer.encode(TEXT) == tokenizer.encode(TEXT)
    assert its_tokenizer.chat_format == tokenizer.chat_format
    ids = torch.randint(10, tokenizer.vocab_size, (2, 32))
    with torch.inference_mode():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)
    is_same = torch.equal(ours.token_embedding.weight, model.token_embedding.weight)
    assert is_same != is_trained
    fault(32)
