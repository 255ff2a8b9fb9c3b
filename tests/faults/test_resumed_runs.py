"""Runs that are resumed with settings or data which are not their own."""

import dataclasses

import pytest
from toy_training import MODEL

from dimgpt.config import LoraConfig
from dimgpt.files import sha256_of
from dimgpt.weights.adapter import fingerprint_base

pytestmark = pytest.mark.slow

LORA = LoraConfig(rank=2)


@pytest.fixture
def refusal(config, make_trainer):
    """Begin a run with some options, and return why it cannot be resumed with others."""

    def refuse(begun_with, resumed_with, *, first=config, second=config):
        first, second = (dataclasses.replace(each, max_steps=2) for each in (first, second))
        begun = make_trainer(first, **begun_with)
        begun.fit()
        before = hashes(begun.folder.path)
        with pytest.raises(ValueError, match="^this folder holds a run of another ") as error:
            make_trainer(second, **resumed_with).fit()
        message = str(error.value)
        assert "\n" not in message
        assert message.endswith("use the saved settings, or train under another name")
        assert hashes(begun.folder.path) == before
        assert make_trainer(first, **begun_with).fit().is_finished
        return message

    return refuse


def hashes(folder):
    return {path: sha256_of(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "changes",
    [
        {"vocab_size": 40},
        {"context_length": 32},
        {"window_size": 4},
        {"embedding_dim": 32},
        {"num_layers": 3},
        {"num_kv_heads": 2},
        {"ffn_dim": 32},
        {"rope_theta": 500.0},
        {"embedding_dim": 24, "num_layers": 1, "ffn_dim": 32},
    ],
    ids=lambda changes: ", ".join(changes),
)
def test_a_run_of_another_model_is_refused_with_each_field(refusal, changes, fault):
    other = dataclasses.replace(MODEL, **changes)
    listed = [f"{name}: {getattr(MODEL, name)} -> {value}" for name, value in changes.items()]
    assert f"(saved -> asked for: {'; '.join(listed)})" in refusal({}, {"model": other})
    fault(14)


@pytest.mark.parametrize(
    ("options", "name"), [("vocabulary", "vocabulary"), ("data_fingerprint", "data")]
)
def test_a_run_with_another_vocabulary_or_other_data_is_refused(refusal, options, name, fault):
    assert f"({name}: aaaa -> bbbb)" in refusal({options: "aaaa"}, {options: "bbbb"}).replace(
        "saved -> asked for: ", ""
    )
    fault(14)


@pytest.mark.parametrize(
    ("other", "listed"),
    [
        (LoraConfig(rank=3, alpha=4.0), "lora.rank: 2 -> 3; lora.alpha: 16.0 -> 4.0"),
        (LoraConfig(), "lora.rank: 2 -> 0"),
    ],
    ids=["another rank", "all weights"],
)
def test_a_run_of_other_adapters_is_refused_with_each_field(refusal, other, listed, fault):
    asked_for = {"lora": other} if other.rank else {}
    assert f"(saved -> asked for: {listed})" in refusal({"lora": LORA}, asked_for)
    fault(14)


@pytest.mark.parametrize(("saved", "asked_for"), [("adamw", "muon"), ("muon", "adamw")])
def test_the_state_of_another_optimizer_is_refused_with_both(
    config, refusal, saved, asked_for, fault
):
    first, second = (
        dataclasses.replace(config, optimizer=optimizer) for optimizer in (saved, asked_for)
    )
    assert f"optimizer: {saved} -> {asked_for}" in refusal({}, {}, first=first, second=second)
    fault(28)


@pytest.mark.parametrize("lora", [LORA, None], ids=["adapters", "all weights"])
def test_a_fine_tuning_of_another_base_model_is_refused_with_both(
    config, make_trainer, refusal, lora, fault
):
    bases = [fingerprint_base(make_trainer(config, seed=seed).model) for seed in (0, 1)]
    begun, resumed = (
        {"lora": lora, "seed": seed, "base_fingerprint": bases[seed]} for seed in (0, 1)
    )
    assert f"base model: {bases[0][:12]} -> {bases[1][:12]}" in refusal(begun, resumed)
    fault(28)
