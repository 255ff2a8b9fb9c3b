import dataclasses

import pytest
import torch

from dimgpt import info
from dimgpt.config import ModelConfig
from dimgpt.info import advise, describe_folder, describe_model, describe_preset, look_around
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


@pytest.fixture
def machine(monkeypatch):
    """A machine of our own making."""

    def make(*, memory=1e12, disk=1e13, flops=1e12):
        monkeypatch.setattr(info, "available_memory", lambda runtime: memory)
        usage = dataclasses.make_dataclass("Usage", ["free"])(disk)
        monkeypatch.setattr(info.shutil, "disk_usage", lambda folder: usage)
        monkeypatch.setattr(info, "peak_flops", lambda runtime: flops)

    return make


def test_a_model_is_described_by_its_real_size():
    rows = describe_model(TOY)
    assert rows["parameters"] == f"{num_parameters(TOY):,}"
    assert num_parameters(TOY) == Transformer(TOY).num_parameters
    assert rows["context"] == "16 tokens"
    assert describe_model(ModelConfig())["memory for training, before activations"] == "3.1 GiB"
    assert describe_model(TOY)["memory for inference (bf16)"] == "0.01 MiB"


def test_the_published_preset_is_described_by_its_published_numbers():
    rows = describe_preset(PRESETS["dimensiongpt-0.2b"])
    assert rows["tokens per step"] == "524,288"
    assert rows["tokens of the pretraining"] == "52,428,800,000"


def test_a_folder_is_described_as_its_model(tmp_path):
    save_model(Transformer(TOY), tmp_path / "toy")
    assert describe_folder(tmp_path / "toy") == describe_model(TOY)


def test_a_preset_that_fits_is_given_its_time(machine):
    machine(flops=1e12)
    assert advise(PRESETS["demo"], CPU) == "fits; pretraining takes about 1 minutes here"
    assert advise(PRESETS["dimensiongpt-0.2b"], CPU).endswith(" hours here")


def test_too_little_memory_or_disk_is_said(machine):
    machine(memory=1e6)
    assert "of memory: choose a smaller one" in advise(PRESETS["demo"], CPU)
    machine(disk=1e6)
    assert "of disk: choose a smaller one" in advise(PRESETS["demo"], CPU)


def test_every_preset_is_judged(machine):
    machine()
    rows = look_around(CPU)
    assert all(f'preset "{name}"' in rows for name in PRESETS)
