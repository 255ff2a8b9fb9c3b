"""What a machine can train in a time: made-up speeds, and one real measurement at toy size."""

from dataclasses import replace

import pytest
import torch

from dimgpt import sizing
from dimgpt.config import ModelConfig
from dimgpt.model.flops import training_flops_per_token
from dimgpt.presets import PRESETS
from dimgpt.runtime import Runtime
from dimgpt.sizing import CURVE, Plan, parse_hours, plan, propose
from dimgpt.training.micro_batch_search import Measurement

CPU = Runtime(device=torch.device("cpu"), precision="fp32")
FRENCH, LARGE = PRESETS["french-5m"], PRESETS["dimensiongpt-0.2b"]


@pytest.fixture
def made_up(monkeypatch):
    """Give a machine of 1 TFLOP/s at its peak, on which every batch runs at 5,000 tokens/s."""
    measured = []

    def measure(model, config, runtime):
        measured.append(model.config)
        rows = config.batch_size
        return [Measurement(batch_size=rows, tokens_per_second=5_000.0, peak_bytes=0)]

    monkeypatch.setattr(sizing, "peak_flops", lambda runtime: 1e12)
    monkeypatch.setattr(sizing, "available_memory", lambda runtime: 1e12)
    monkeypatch.setattr(sizing, "measure_sizes", measure)
    return measured


@pytest.mark.parametrize(("text", "hours"), [("90m", 1.5), ("24h", 24), ("2d", 48), ("1.5h", 1.5)])
def test_a_budget_is_minutes_hours_or_days(text, hours):
    assert parse_hours(text) == hours


@pytest.mark.parametrize("text", ["3x", "", "24", "0h", "-1h", "h", "1h30", "٣h x"])
def test_another_budget_is_refused_with_what_to_write(text):
    with pytest.raises(ValueError, match=r"budget is .*: give minutes, hours or days, as 90m"):
        parse_hours(text)


def test_more_parameters_and_more_tokens_lower_the_expected_loss():
    base = CURVE.bits_per_byte(1e6, 1e6, optimizer="muon")
    assert CURVE.bits_per_byte(2e6, 1e6, optimizer="muon") < base
    assert CURVE.bits_per_byte(1e6, 2e6, optimizer="muon") < base
    assert CURVE.bits_per_byte(1e6, 1e6, optimizer="adamw") > base
    assert CURVE.bits_per_byte(1e30, 1e30, optimizer="muon") == pytest.approx(CURVE.floor, abs=0.01)


def test_a_run_fills_its_time_and_keeps_the_shape_of_its_schedule(made_up):
    (found,) = plan(24, CPU, [FRENCH])
    run = found.preset.pretraining
    assert run.sequences_per_step == FRENCH.pretraining.sequences_per_step
    assert run.max_steps == int(0.9 * 24 * 3600 * 5_000 / 8_192)
    assert run.warmup_steps / run.max_steps == pytest.approx(100 / 1_600, rel=0.01)
    assert run.num_decay_steps / run.max_steps == pytest.approx(1_500 / 1_600, rel=0.01)
    assert found.row()["hours"] == "24.0"
    assert f"--training.max-steps {run.max_steps} " in found.command
    assert "muon" not in found.command


def test_a_preset_that_is_too_slow_to_measure_gets_a_scaled_speed(made_up):
    first, second = plan(24, CPU, [FRENCH, LARGE])
    assert made_up == [FRENCH.model]
    ratio = training_flops_per_token(FRENCH.model) / training_flops_per_token(LARGE.model)
    assert second.tokens_per_second == pytest.approx(5_000 * ratio)
    assert "scaled" in second.row()["tokens/s"]
    assert "scaled" not in first.row()["tokens/s"]


@pytest.mark.slow
def test_what_lacks_memory_or_steps_is_not_proposed(made_up, monkeypatch):
    _, large = plan(24, CPU, [FRENCH, LARGE])
    assert "17 of at least 200 steps of 524,288 tokens" in large.obstacle
    table = propose("24h", CPU)
    assert [row[0] for row in table.rows] == ["→", ""]
    assert "train --preset french-5m-modern --training" in table.title
    monkeypatch.setattr(sizing, "available_memory", lambda runtime: 1e6)
    table = propose("24h", CPU)
    assert [row[0] for row in table.rows] == ["", ""]
    assert "no preset can be trained" in table.title
    assert "of memory" in table.rows[0][-1]


def test_repeated_text_teaches_less_than_new_text(made_up):
    once, often = (
        Plan(preset=FRENCH, text_tokens=text, tokens_per_second=1.0, is_measured=True)
        for text in (13_107_200, 1_310_720)
    )
    assert once.useful_tokens == 13_107_200
    assert 0.6 < often.useful_tokens / 13_107_200 < 0.85
    assert often.bits_per_byte > once.bits_per_byte
    assert often.row()["passes over its text"] == "10"


def test_a_loss_outside_of_the_fitted_range_is_called_a_guess(made_up):
    (found,) = plan(24, CPU, [FRENCH])
    assert "a guess" in found.row()["bits per byte"]
    small = replace(FRENCH, model=replace(FRENCH.model, embedding_dim=32, vocab_size=4_000))
    short = replace(small, pretraining=replace(FRENCH.pretraining, max_steps=40))
    inside = Plan(preset=short, text_tokens=1e9, tokens_per_second=1.0, is_measured=True)
    assert "a guess" not in inside.row()["bits per byte"]


@pytest.mark.slow
def test_a_toy_is_measured_on_this_machine():
    toy = ModelConfig(
        vocab_size=64,
        context_length=16,
        embedding_dim=16,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        ffn_dim=24,
    )
    run = replace(FRENCH.pretraining, batch_size=2, accumulation_steps=2)
    (found,) = plan(1 / 60, CPU, [replace(FRENCH, model=toy, pretraining=run)])
    assert found.is_measured
    assert found.tokens_per_second > 0
    assert found.preset.pretraining.sequences_per_step == 4
