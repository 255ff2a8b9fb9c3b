import json
import sys
import types
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.presets import PRESETS
from dimgpt.weights.checkpoints import CONFIGS, LAYOUTS
from dimgpt.weights.originals import load_original

LAYOUT = LAYOUTS["lillm"]
ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "lillm"
FINETUNED = FIXTURES / "best_model_sft_orig_mod.pt"
PRETRAINED = ROOT.parent / "shared" / "fixtures" / "lillm" / "best_model.pt"
SHOWN = ("vocab_size", "embedding_dim", "num_layers", "ffn_dim")
INFO = json.loads((FIXTURES / "info.json").read_text())
TINY = ModelConfig(
    vocab_size=512,
    context_length=64,
    window_size=None,
    embedding_dim=64,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    ffn_dim=256,
    norm_eps=1e-6,
    dropout_places=("outputs",),
    init="fan_in",
    scaled_outputs="both",
)


def require_same_logits(model: Transformer) -> None:
    inputs = torch.from_numpy(np.load(FIXTURES / "inputs.npy"))
    with torch.inference_mode():
        logits = model(inputs).numpy()
    np.testing.assert_allclose(logits, np.load(FIXTURES / "logits.npy"), atol=1e-4)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return load_original(FINETUNED).model


@pytest.fixture
def content(model: Transformer) -> dict[str, torch.Tensor]:
    """Give the state dict under its original names."""
    tensors = {LAYOUT.theirs(name): tensor for name, tensor in model.state_dict().items()}
    return {**tensors, "lm_head.weight": tensors["tok_emb.weight"]}


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a checkpoint as lilLM does, whose config is a dataclass of another program."""

    def save(state: object, **fields: object) -> Path:
        @dataclass
        class Config:
            values: None = None

        Config.__module__, Config.__qualname__ = "model.config", "Config"
        module = types.ModuleType("model.config")
        module.Config = Config
        monkeypatch.setitem(sys.modules, "model", types.ModuleType("model"))
        monkeypatch.setitem(sys.modules, "model.config", module)
        config = Config()
        config.__dict__ = INFO["config"] | fields
        path = tmp_path / "best_model.pt"
        torch.save({"model": state, "optimizer": {"state": {}}, "config": config}, path)
        monkeypatch.undo()
        return path

    return save


def refused(path: Path, match: str, config: ModelConfig | None = None) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        load_original(path, config)
    assert "\n" not in str(caught.value)


def test_the_logits_are_the_originals(model: Transformer) -> None:
    assert model.config == TINY
    require_same_logits(model)
    assert not model.training
    assert model.num_parameters == INFO["nb_parameters"]


@pytest.mark.skipif(not PRETRAINED.is_file(), reason="needs the original's 2.6 MB checkpoint")
def test_a_pretraining_checkpoint_with_its_optimizer_is_read() -> None:
    require_same_logits(load_original(PRETRAINED).model)


def test_the_pickled_config_gives_what_the_tensors_do_not_show(saved, content) -> None:
    model = load_original(saved(content, eps=1e-3, max_seq_len=32, dropout=0.25)).model
    expected = replace(TINY, norm_eps=1e-3, context_length=32, dropout=0.25, attention_dropout=0.25)
    assert model.config == expected


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_dropped(saved, content, prefix: str) -> None:
    path = saved({f"{prefix}{name}": tensor for name, tensor in content.items()})
    require_same_logits(load_original(path).model)


def test_a_tensor_with_and_without_a_prefix_is_refused(saved, content) -> None:
    refused(saved({**content, "_orig_mod.norm.gain": torch.ones(64)}), "holds tensors twice")


def test_an_unknown_width_of_the_feed_forward_follows_the_rule(saved, content) -> None:
    assert load_original(saved(content, hidden_dim=256)).model.config.ffn_dim == 256
    refused(saved(content, hidden_dim=384), "ffn_dim is 256 in the file and 384 in the config")
    refused(saved(content, multiple_of=100), "ffn_dim is 256 in the file and 200 in the config")


def test_all_sizes_that_differ_from_the_config_are_listed(saved, content) -> None:
    path = saved(content, vocab_size=8192, n_layers=4, kv_heads=4)
    refused(path, r"vocab_size is 512 .* 8192.*num_layers is 3 .* 4 .*kv_dim is 32 .* 64")


def test_missing_and_extra_tensors_are_listed_by_their_own_names(saved, content) -> None:
    del content["transformer_blocks.1.attn.wo.weight"], content["norm.gain"]
    content["transformer_blocks.2.attn.wq.bias"] = torch.zeros(64)
    content["transformer_blocks.0.ffn.w2.weight"] = torch.zeros(64, 255)
    refused(
        saved(content),
        r"norm.gain is missing.*"
        r"wq.bias is unexpected.*ffn.w2.weight is \(64, 255\) instead of \(64, 256\)",
    )


def test_an_untied_output_is_refused(saved, content) -> None:
    content["lm_head.weight"] = content["lm_head.weight"] + 1
    refused(saved(content), "lm_head.weight is not the same matrix as tok_emb.weight")
    del content["lm_head.weight"]
    refused(saved(content), "lm_head.weight is not the same matrix")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"n_layers": -1}, "n_layers is -1: it must be a positive whole number"),
        ({"n_layers": 10**9}, "num_layers is 3 in the file and 1000000000"),
        ({"d_model": "64"}, "d_model is '64'"),
        ({"q_heads": 3}, "must be a multiple of 2"),
        ({"q_heads": True}, "q_heads is True"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"dropout": 2.0}, "dropout is 2.0"),
        ({"max_seq_len": 2**30}, "context_length is 1073741824"),
        ({"nested": {"a": 1}}, "damaged or holds code"),
    ],
)
def test_a_config_of_no_model_is_refused(saved, content, fields: dict, match: str) -> None:
    refused(saved(content, **fields), match)


def test_without_a_config_heads_must_be_the_published(tmp_path: Path, content) -> None:
    path = tmp_path / "bare.pt"
    torch.save({"model": content}, path)
    refused(path, "does not contain q_heads, and no published model has the width 64")
    require_same_logits(load_original(path, TINY).model)
    torch.save(content, path)
    require_same_logits(load_original(path, TINY).model)


@pytest.mark.parametrize("kv_dim", [256, 128])
def test_without_a_config_sizes_come_from_the_tensors(tmp_path: Path, kv_dim: int) -> None:
    config = replace(TINY, vocab_size=30, context_length=512, embedding_dim=512, num_layers=2)
    config = replace(config, num_heads=16, num_kv_heads=kv_dim // 32)
    tensors = Transformer(config).state_dict()
    theirs = {LAYOUT.theirs(name): tensor for name, tensor in tensors.items()}
    theirs["lm_head.weight"] = theirs["tok_emb.weight"]
    torch.save(theirs, tmp_path / "bare.pt")
    if kv_dim == 256:
        assert load_original(tmp_path / "bare.pt").model.config == config
    else:
        refused(tmp_path / "bare.pt", "kv_dim is 128 .* 256 .*8 key-value heads.*pass config=")


def test_weights_that_are_not_finite_are_refused(saved, content) -> None:
    content["tok_emb.weight"] = content["lm_head.weight"] = content["tok_emb.weight"].clone()
    content["tok_emb.weight"][3, 3] = float("nan")
    refused(saved(content), "token_embedding.weight holds NaN")


@pytest.mark.parametrize(
    ("size", "preset", "parameters"),
    [("39M", "lillm-39m", 39_596_544), ("300M", "lillm-300m", 291_554_304)],
)
def test_a_published_config_and_its_tensors_are_those_of_the_preset(
    size: str, preset: str, parameters: int
) -> None:
    published, config = INFO["full"][size], PRESETS[preset].model
    shown = {name: getattr(config, name) for name in SHOWN}
    assert CONFIGS["lillm"](published["config"], shown) == config
    with torch.device("meta"):
        model = Transformer(config)
    ours = {LAYOUT.theirs(name): tensor for name, tensor in model.state_dict().items()}
    theirs = {name: tuple(shape) for name, shape in published["state_dict_layer0_and_ends"]}
    assert theirs.pop("lm_head.weight") == theirs["tok_emb.weight"]
    assert {name: tuple(ours[name].shape) for name in theirs} == theirs
    assert len(ours) + 1 == published["nb_state_dict_entries"]
    assert model.num_parameters == published["nb_parameters"] == parameters
