import dataclasses
import math
import typing

import pytest

from dimgpt.config import (
    ConversationSourceConfig,
    DataConfig,
    ModelConfig,
    QualityConfig,
    SamplingConfig,
    SourceConfig,
    TokenizerConfig,
    TrainingConfig,
)

NAN = math.nan


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (ModelConfig, {"vocab_size": 0}),
        (ModelConfig, {"window_size": 0}),
        (ModelConfig, {"dropout": 1.5}),
        (ModelConfig, {"dropout_places": ("output",)}),
        (ModelConfig, {"attention_dropout": -0.1}),
        (ModelConfig, {"norm_eps": 0}),
        (ModelConfig, {"rope_theta": math.inf}),
        (TrainingConfig, {"batch_size": 0}),
        (TrainingConfig, {"learning_rate": NAN}),
        (TrainingConfig, {"warmup_steps": -1}),
        (TrainingConfig, {"metrics_decay": 1.01}),
        (TrainingConfig, {"precision": "fp8"}),
        (TrainingConfig, {"adam_betas": (0.9, 1.0)}),
        (TrainingConfig, {"min_learning_rate": 1.0}),
        (TrainingConfig, {"schedule": "step"}),
        (TrainingConfig, {"cooldown": "cosine"}),
        (TrainingConfig, {"trackers": ("mlflow",)}),
        (TrainingConfig, {"patience": 0}),
        (TrainingConfig, {"keep_checkpoints": 0}),
        (TrainingConfig, {"keep_best": 0}),
        (TrainingConfig, {"dropout": 1.1}),
        (DataConfig, {"validation_ratio": -0.1}),
        (DataConfig, {"num_workers": 0}),
        (DataConfig, {"test_ratio": 1.1}),
        (DataConfig, {"bad_records": "ignore"}),
        (QualityConfig, {"max_characters": 0}),
        (QualityConfig, {"near_duplicate_similarity": 1.0}),
        (QualityConfig, {"near_duplicate_similarity": NAN}),
        (QualityConfig, {"languages": ("fr", "French")}),
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


def test_a_template_names_its_columns():
    source = SourceConfig(name="a", path="x", text_template="{title} {{}}\n\n{text}{title}")
    assert source.text_columns == ("title", "text")
    assert SourceConfig(name="a", path="x", text_column="body").text_columns == ("body",)


@pytest.mark.parametrize(
    "template", ["", "text", "{}", "{0.a}", "{a[0]}", "{a!r}", "{a:>9}", "{a", "a}", "{a:{b}}"]
)
def test_a_template_that_is_more_than_text_and_names_is_refused(template):
    with pytest.raises(ValueError, match="^text_template is ") as caught:
        SourceConfig(name="a", path="x", text_template=template)
    assert "\n" not in str(caught.value)


def test_a_column_and_a_template_together_are_refused():
    with pytest.raises(ValueError, match="keep one of them"):
        SourceConfig(name="a", path="x", text_column="body", text_template="{title}")
    assert SourceConfig(name="a", path="x", text_template="{x}").text_columns == ("x",)


@pytest.mark.parametrize("size", [0, -5])
def test_an_expected_size_is_positive(size):
    with pytest.raises(ValueError, match=f"expected_bytes is {size}"):
        SourceConfig(name="a", path="x", expected_bytes=size)


def test_limits_that_leave_nothing_are_refused():
    with pytest.raises(ValueError, match="no document would be left"):
        DataConfig(quality=QualityConfig(max_characters=63))
    with pytest.raises(ValueError, match="their sum must be at most 1"):
        DataConfig(validation_ratio=0.6, test_ratio=0.5)


def test_conversations_of_which_none_are_held_out_are_refused_by_name():
    groups = [ConversationSourceConfig(name=n, path="x", validation_ratio=0.0) for n in "ab"]
    with pytest.raises(ValueError, match=r"validation_ratio is 0 in all of \['a', 'b'\]"):
        DataConfig(conversations=tuple(groups))
    some = dataclasses.replace(groups[1], validation_ratio=None)
    assert DataConfig(conversations=(groups[0], some), validation_ratio=0.0)


def test_what_the_published_recipe_did_not_do_is_off():
    quality = QualityConfig()
    assert DataConfig().quality == quality
    assert (quality.languages, quality.max_characters) == ((), None)
    assert (quality.drop_exact_duplicates, quality.drop_near_duplicates) == (False, False)
    assert (DataConfig().test_ratio, DataConfig().bad_records) == (0.0, "refuse")


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
    [ModelConfig, TrainingConfig, DataConfig, QualityConfig, SamplingConfig],
    ids=lambda kind: kind.__name__,
)
def test_all_defaults_are_valid(kind):
    assert kind() == kind()


@pytest.mark.parametrize(
    ("schedule", "max_steps", "expected"),
    [("linear", 1_000, 900), ("cosine", 40, 1), ("wsd", 1_000, 650), ("wsd", 200, 100)],
)
def test_without_a_number_the_fall_follows_the_length_of_the_run(schedule, max_steps, expected):
    run = TrainingConfig(schedule=schedule, warmup_steps=100, decay_steps=None, max_steps=max_steps)
    assert run.num_decay_steps == expected
    assert run.num_idle_steps == 0


@pytest.mark.parametrize(
    ("least", "schedule", "expected"), [(0, "linear", 31), (1e-5, "linear", 0), (0, "wsd", 0)]
)
def test_steps_at_a_rate_of_0_are_counted(least, schedule, expected):
    run = TrainingConfig(
        schedule=schedule, warmup_steps=5, decay_steps=5, max_steps=40, min_learning_rate=least
    )
    assert run.num_idle_steps == expected


def test_a_fall_that_does_not_fit_before_the_end_is_refused():
    assert TrainingConfig(schedule="wsd", decay_steps=98_000).decay_steps == 98_000
    with pytest.raises(ValueError, match=r"decay_steps is 98001: .*must fit into max_steps"):
        TrainingConfig(schedule="wsd", decay_steps=98_001)


def test_a_context_whose_tables_would_fill_the_memory_is_refused():
    with pytest.raises(ValueError, match=r"context_length is 1048577: .* at most 1,048,576"):
        ModelConfig(context_length=2**20 + 1)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (kind, field.name)
        for kind in (ModelConfig, TrainingConfig, DataConfig, TokenizerConfig)
        for field in dataclasses.fields(kind)
        if typing.get_origin(field.type) is typing.Literal
    ],
)
def test_a_field_of_choices_refuses_anything_else(kind, name):
    with pytest.raises(ValueError, match=rf"{name} is 'nothing': it must be one of "):
        kind(**{name: "nothing"})


@pytest.mark.parametrize(
    "options",
    [
        {"path": "hf://datasets/a/b", "hub_config": "fr"},
        {"path": "hf://datasets/a/b", "hub_split": "test"},
        {"path": "texts"},
    ],
)
def test_files_stand_for_configuration_and_split_of_a_hub_data_set(options):
    with pytest.raises(ValueError, match=r"files is '\*\*'.*; remove one"):
        SourceConfig(name="a", files="**", **options)


def test_an_unknown_rule_of_cleaning_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="cleaning is 'wash': it must be one of none, detokenize"):
        SourceConfig(name="a", path="x", cleaning="wash")
