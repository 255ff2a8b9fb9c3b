from dataclasses import replace

import pytest
import torch

from dimgpt import info
from dimgpt.config import ModelConfig
from dimgpt.info import (
    advise,
    compare_cards,
    compare_sizes,
    describe_model,
    describe_preset,
    describe_weights,
    look_around,
)
from dimgpt.model.flops import num_parameters
from dimgpt.model.transformer import Transformer
from dimgpt.presets import PRESETS
from dimgpt.runtime import Runtime
from dimgpt.weights.store import save_model

CPU = Runtime(device=torch.device("cpu"), precision="fp32")
TOY = ModelConfig(
    vocab_size=64,
    context_length=16,
    embedding_dim=16,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    ffn_dim=24,
)


def test_a_model_is_described_by_its_real_size():
    rows = describe_model(TOY)
    assert rows["parameters"] == f"{num_parameters(TOY):,}"
    assert num_parameters(TOY) == Transformer(TOY).num_parameters
    assert rows["trainable parameters"] == rows["parameters"]
    assert rows["other parameters"] == "0"
    assert rows["context"] == "16 tokens"
    assert describe_model(ModelConfig())["memory for training, before activations"] == "3.1 GiB"
    assert describe_model(TOY)["memory for inference (bf16)"] == "0.01 MiB"
    assert "architecture" not in rows
    assert describe_model(replace(TOY, qk_norm=True))["architecture"] == "qk_norm=True"


def test_of_a_model_with_experts_the_active_parameters_are_shown_too():
    sparse = replace(TOY, num_experts=8)
    rows, idle = describe_model(sparse), 6 * 3 * 16 * 24
    assert rows["active parameters"] == f"{num_parameters(sparse) - idle:,}"
    assert rows["architecture"] == "num_experts=8"
    assert "active parameters" not in describe_model(TOY)


def test_parameters_that_do_not_learn_are_counted_apart(monkeypatch):
    class Frozen(Transformer):
        def __init__(self, config):
            super().__init__(config)
            self.final_norm.requires_grad_(False)

    monkeypatch.setattr("dimgpt.model.flops.Transformer", Frozen)
    rows = describe_model(TOY)
    assert rows["other parameters"] == "16"
    assert rows["trainable parameters"] == f"{num_parameters(TOY) - 16:,}"


def test_the_published_preset_is_described_by_its_published_numbers():
    rows = describe_preset(PRESETS["dimensiongpt-0.2b"])
    assert rows["tokens per step"] == "524,288"
    assert rows["tokens of the pretraining"] == "52,428,800,000"


def test_a_folder_is_described_as_its_model(tmp_path):
    save_model(Transformer(TOY), tmp_path / "toy")
    assert describe_weights(tmp_path / "toy") == describe_model(TOY)


RICH = {"memory": 1e12, "disk": 1e13, "flops": 1e12}


def test_a_preset_that_fits_is_given_its_time():
    assert advise(PRESETS["demo"], **RICH) == "fits; pretraining takes about 1 minute here"
    fast = advise(PRESETS["dimensiongpt-0.2b"], **RICH | {"flops": 1e15})
    assert fast == "fits; pretraining takes about 47 hours here"
    assert advise(PRESETS["dimensiongpt-0.2b"], **RICH).endswith("1,959 days here")


def test_too_little_memory_or_disk_is_said():
    poor, full = RICH | {"memory": 1e6}, RICH | {"disk": 1e6}
    assert "of memory: choose a smaller one" in advise(PRESETS["demo"], **poor)
    assert "of disk: choose a smaller one" in advise(PRESETS["demo"], **full)


@pytest.mark.slow
def test_sizes_are_compared_here_and_on_known_cards():
    sizes = {row["preset"]: row for row in compare_sizes(1e12)}
    assert list(sizes) == list(PRESETS)
    assert sizes["lillm-300m"]["parameters"] == "291,554,304"
    assert sizes["dimensiongpt-0.2b"]["tokens/s here"] == f"{0.4e12 / 1.2913e9:,.0f}"
    cards = {row["card"]: row for row in compare_cards()}
    assert set(cards["RTX 3090"]) == {"card", *PRESETS}
    assert cards["RTX 3090"]["dimensiongpt-0.2b"].startswith("21,9")  # of 55.0 thousand


@pytest.mark.slow
def test_every_preset_is_judged_by_one_measurement(monkeypatch):
    measured = []
    monkeypatch.setattr(info, "peak_flops", lambda runtime: measured.append(runtime) or 1e12)
    rows = look_around(CPU)
    assert measured == [CPU]
    assert all(f'preset "{name}"' in rows for name in PRESETS)
