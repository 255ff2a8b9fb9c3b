import dataclasses
import math

import pytest

from dimgpt.config import (
    ConversationSourceConfig,
    DataConfig,
    ModelConfig,
    SamplingConfig,
    SourceConfig,
    TrainingConfig,
)

NAN = math.nan


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (ModelConfig, {"vocab_size": 0}),
        (ModelConfig, {"window_size": 0}),
        (ModelConfig, {"dropout": 1.5}),
        (ModelConfig, {"norm_eps": 0}),
        (ModelConfig, {"rope_theta": math.inf}),
        (TrainingConfig, {"batch_size": 0}),
        (TrainingConfig, {"learning_rate": NAN}),
        (TrainingConfig, {"warmup_steps": -1}),
        (TrainingConfig, {"metrics_decay": 1.01}),
        (TrainingConfig, {"precision": "fp8"}),
        (TrainingConfig, {"adam_betas": (0.9, 1.0)}),
        (TrainingConfig, {"min_learning_rate": 1.0}),
        (DataConfig, {"validation_ratio": -0.1}),
        (DataConfig, {"num_workers": 0}),
        (SamplingConfig, {"temperature": -1}),
        (SamplingConfig, {"top_p": 1.1}),
        (SamplingConfig, {"top_k": 0}),
        (SamplingConfig, {"max_new_tokens": 0}),
        (SamplingConfig, {"repetition_penalty": NAN}),
        (SamplingConfig, {"seed": -1}),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_refused_by_name_and_value(kind, values):
    ((name, value),) = values.items()
    with pytest.raises(ValueError, match=rf"^{name} is ") as caught:
        kind(**values)
    assert str(value) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "..", ".hidden", "c:d", "a*"])
def test_a_source_name_that_is_no_folder_name_is_refused(name):
    with pytest.raises(ValueError, match="it names a folder"):
        SourceConfig(name=name, path="x")


@pytest.mark.parametrize("ratios", [{"a": 0.7, "b": 0.4}, {"a": -0.1}, {"a": NAN}])
def test_shares_of_system_prompts_are_at_least_0_and_at_most_1_together(ratios):
    with pytest.raises(ValueError, match="system_prompt_ratios"):
        ConversationSourceConfig(name="a", path="x", system_prompt_ratios=ratios)


def test_shares_of_system_prompts_may_sum_to_1_with_a_rounding_error():
    ratios = {"a": 0.1, "b": 0.2, "c": 0.7}
    assert ConversationSourceConfig(name="a", path="x", system_prompt_ratios=ratios)


def test_two_sources_of_one_name_are_refused():
    source = SourceConfig(name="a", path="x")
    with pytest.raises(ValueError, match="unique"):
        DataConfig(sources=(source, source))


@pytest.mark.parametrize(
    "values", [{"embedding_dim": 100, "num_heads": 16}, {"num_heads": 16, "num_kv_heads": 5}]
)
def test_heads_must_divide_what_they_share(values):
    with pytest.raises(ValueError, match="num_heads"):
        ModelConfig(**values)


def test_derived_values_follow_the_fields():
    assert ModelConfig().head_dim == 64
    assert TrainingConfig(batch_size=3, accumulation_steps=5).sequences_per_step == 15


def test_a_config_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().vocab_size = 3


@pytest.mark.parametrize(
    "kind",
    [ModelConfig, TrainingConfig, DataConfig, SamplingConfig],
    ids=lambda kind: kind.__name__,
)
def test_all_defaults_are_valid(kind):
    assert kind() == kind()
