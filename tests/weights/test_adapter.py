"""Folders of adapters: they need their base, load merged, and are read by peft."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from dimgpt.config import LoraConfig, ModelConfig
from dimgpt.files import sha256_of
from dimgpt.model.lora import adapter_tensors, add_adapters
from dimgpt.model.transformer import Transformer
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.special_tokens import SPECIAL_TOKENS
from dimgpt.weights.adapter import ADAPTER_NAME, AdapterBase, fingerprint_base
from dimgpt.weights.export.transformers_folder import write_transformers
from dimgpt.weights.store import load_model, save_model

TOKENIZER = GreedyTokenizer([*SPECIAL_TOKENS, *"abcdefgh"])
SHAPE = ModelConfig(
    vocab_size=TOKENIZER.vocab_size,
    context_length=16,
    window_size=8,
    embedding_dim=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    ffn_dim=24,
    init_std=0.1,
)
IDS = torch.arange(24).view(2, 12) % TOKENIZER.vocab_size


def save_both(root, shape=SHAPE, **lora):
    """Write models/toy, and adapters for it in models/toy-chat; return the model with both."""
    torch.manual_seed(0)
    model = Transformer(shape).eval()
    save_model(model, root / "toy", TOKENIZER)
    add_adapters(model, LoraConfig(rank=2, **lora))
    with torch.no_grad():
        for tensor in adapter_tensors(model).values():
            tensor.normal_(std=0.2)
    base = AdapterBase(name="toy", sha256=fingerprint_base(model), lora=model.lora)
    save_model(model, root / "toy-chat", TOKENIZER, base=base)
    return model


def test_a_folder_of_adapters_opens_as_the_model_that_was_trained(tmp_path, monkeypatch):
    model = save_both(tmp_path)
    folder = tmp_path / "toy-chat"
    assert (folder / ADAPTER_NAME).exists()
    assert not (folder / "model.safetensors").exists()
    loaded = load_model(folder)
    assert loaded.state_dict().keys() == load_model(tmp_path / "toy").state_dict().keys()
    torch.testing.assert_close(loaded(IDS), model(IDS), atol=1e-5, rtol=1e-5)
    monkeypatch.chdir(folder)
    assert torch.equal(load_model(type(folder)("."))(IDS), loaded(IDS))


def test_adapters_without_their_base_say_which_they_need(tmp_path):
    save_both(tmp_path)
    (tmp_path / "toy").rename(tmp_path / "elsewhere")
    with pytest.raises(
        FileNotFoundError, match="adapters of the model toy, but at .*toy there is nothing: put"
    ):
        load_model(tmp_path / "toy-chat")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "../toy"}, "name is '../toy'"),
        (
            {"name": "toy-chat"},
            "names .*toy-chat as its base model, but that folder holds adapters too",
        ),
        ({"lora": {"rank": 0}}, "lora.rank is 0"),
        ({"lora": {"rank": 3}}, "no adapters of rank 3"),
        ({"lora": {"rank": 2, "targets": ["query"]}}, "for query of this model"),
    ],
)
def test_a_config_that_does_not_fit_the_adapters_is_refused(tmp_path, changes, reason):
    save_both(tmp_path)
    path = tmp_path / "toy-chat" / "config.json"
    content = json.loads(path.read_text())
    content["base"] |= changes
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=reason):
        load_model(tmp_path / "toy-chat")


def test_a_damaged_adapter_is_refused(tmp_path):
    save_both(tmp_path)
    path = tmp_path / "toy-chat" / ADAPTER_NAME
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match="SHA-256 differs"):
        load_model(tmp_path / "toy-chat")
    assert sha256_of(path)


@pytest.fixture(
    params=[
        pytest.param({}, id="mistral"),
        pytest.param({"window_size": None}, id="llama"),
        pytest.param({"qk_norm": True, "tie_embeddings": False}, id="qwen3"),
    ]
)
def exported(request, tmp_path):
    """A model with adapters, its exported base as transformers opens it, and their folder."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    shape = dataclasses.replace(SHAPE, **request.param)
    model = save_both(tmp_path, shape, alpha=6.0)
    (tmp_path / "base").mkdir()
    base = load_model(tmp_path / "toy")
    write_transformers(base, TOKENIZER, tmp_path / "base", dtype=torch.float32)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    return model, theirs, tmp_path / "toy-chat"


@pytest.mark.slow
def test_the_saved_matrices_change_an_exported_base_into_our_model(exported):
    model, theirs, folder = exported
    settings = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / ADAPTER_NAME)
    layers = {name.removeprefix("base_model.model.").split(".lora_")[0] for name in tensors}
    assert {layer.split(".")[-1] for layer in layers} == set(settings["target_modules"])
    with torch.no_grad():
        for layer in layers:
            a, b = (tensors[f"base_model.model.{layer}.lora_{x}.weight"] for x in "AB")
            update = settings["lora_alpha"] / settings["r"] * b @ a
            theirs.get_submodule(layer).weight += update
        difference = (theirs(IDS).logits - model(IDS)).abs().max()
    assert difference < 1e-4


@pytest.mark.slow
def test_peft_itself_opens_the_folder_on_an_exported_base(exported):
    peft = pytest.importorskip("peft", reason="peft is not installed")
    model, theirs, folder = exported
    before = theirs(IDS).logits
    with torch.no_grad():
        logits = peft.PeftModel.from_pretrained(theirs, folder)(IDS).logits
        assert (logits - model(IDS)).abs().max() < 1e-4
    assert (logits - before).abs().max() > 1e-2
