import json
from dataclasses import dataclass, field

import pytest

from dimgpt.config import (
    DataConfig,
    ModelConfig,
    QualityConfig,
    SamplingConfig,
    SourceConfig,
    TrainingConfig,
)
from dimgpt.presets import PRESETS, Preset
from dimgpt.settings import from_dict, merge, override, to_dict


def through_json(config):
    return from_dict(type(config), json.loads(json.dumps(to_dict(config))))


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int = 1


@dataclass(frozen=True, kw_only=True)
class Outer:
    pairs: tuple[tuple[int, ...], ...] = ()
    inner: Inner | None = None
    inners: tuple[Inner, ...] = ()
    shares: dict[str, float] = field(default_factory=dict)
    limit: int | None = None
    choice: bool | None = None


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_json(name):
    assert through_json(PRESETS[name]) == PRESETS[name]
    assert from_dict(Preset, to_dict(PRESETS[name])) == PRESETS[name]


@pytest.mark.parametrize(
    "config",
    [
        Outer(),
        Outer(pairs=((1, 2), (), (3,)), inner=Inner(size=4), inners=(Inner(), Inner(size=2))),
        Outer(shares={"a": 0.5}, limit=0, choice=False),
        ModelConfig(window_size=None),
        TrainingConfig(use_compile=False, adam_betas=(0.5, 0.6)),
        DataConfig(sources=(SourceConfig(name="é", path="a b/ç"),), num_workers=3),
        DataConfig(quality=QualityConfig(languages=("fr", "en"), max_characters=1000)),
        SourceConfig(name="a", path="b", text_template="{t}", revision="c0ffee", expected_bytes=9),
    ],
    ids=str,
)
def test_nested_tuples_none_and_dictionaries_survive_json(config):
    assert through_json(config) == config


def test_an_unknown_field_is_refused_by_name_with_the_known_ones():
    with pytest.raises(ValueError, match="ModelConfig has no field 'depth', 'width'") as caught:
        from_dict(ModelConfig, {"width": 3, "depth": 2})
    assert "num_layers" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "values", "complaint"),
    [
        (SourceConfig, {"name": "a"}, "a field is missing.*path"),
        (ModelConfig, {"vocab_size": "many"}, "vocab_size is 'many': it must be a whole number"),
        (ModelConfig, {"vocab_size": True}, "vocab_size is True: it must be a whole number"),
        (ModelConfig, {"tie_embeddings": 1}, "tie_embeddings is 1: it must be true or false"),
        (ModelConfig, {"window_size": "no"}, "window_size is 'no': it must be a whole number"),
        (ModelConfig, ["vocab_size"], "must be an object"),
        (TrainingConfig, {"batch_size": 2.5}, "batch_size is 2.5: it must be a whole number"),
        (TrainingConfig, {"adam_betas": [0.9, "b"]}, "adam_betas is 'b': it must be a number"),
        (DataConfig, {"sources": "abc"}, "sources is 'abc': it must be a list"),
        (DataConfig, {"sources": [3]}, "must be an object"),
        (DataConfig, {"sources": None}, "sources is None: it must be a list"),
        (DataConfig, {"quality": {"languages": "fr"}}, "languages is 'fr': it must be a list"),
        (DataConfig, {"quality": None}, "must be an object"),
        (DataConfig, {"sources": [{"name": 3, "path": "a"}]}, "name is 3: it must be a text"),
    ],
    ids=str,
)
def test_a_missing_field_or_one_of_another_kind_is_a_value_error(kind, values, complaint):
    with pytest.raises(ValueError, match=complaint):
        from_dict(kind, values)


def test_a_whole_number_may_stand_for_a_number_and_nothing_for_what_may_be_nothing():
    assert from_dict(TrainingConfig, {"learning_rate": 1, "patience": None}).learning_rate == 1


def test_the_checks_of_a_config_hold_for_what_is_read():
    with pytest.raises(ValueError, match="vocab_size is 0"):
        from_dict(ModelConfig, {"vocab_size": 0})


def test_override_changes_what_is_given_and_keeps_the_rest():
    config = SamplingConfig(top_k=3, temperature=0.5)
    changed = override(config, temperature=0.0, top_k=None)
    assert changed == SamplingConfig(top_k=3, temperature=0.0)
    assert config.temperature == 0.5


def test_override_checks_the_new_value():
    with pytest.raises(ValueError, match="temperature is -1"):
        override(SamplingConfig(), temperature=-1.0)


@pytest.mark.parametrize("value", [None, 3, [0.5]])
def test_shares_that_are_no_object_are_refused(value):
    with pytest.raises(ValueError, match="published_shares is .*: it must be an object with names"):
        merge(PRESETS["demo"], {"data": {"published_shares": value}})
