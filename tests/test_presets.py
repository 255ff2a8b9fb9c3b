from dataclasses import replace
from fnmatch import fnmatchcase

import pytest

from dimgpt.config import ModelConfig, TrainingConfig
from dimgpt.model.flops import num_parameters
from dimgpt.pipeline.mixture import expected_shortfalls
from dimgpt.presets import PRESETS, get_preset
from dimgpt.presets.modern import PARTS, with_parts
from dimgpt.presets.sources import (
    DIMENSIONGPT_CONVERSATIONS,
    DIMENSIONGPT_SOURCES,
    FRENCH_INSTRUCT,
    LILLM_CONVERSATIONS,
    OPENWEBTEXT,
    PUBLISHED_SHARES,
    TOYGPT_SOURCES,
)
from dimgpt.settings import from_dict, to_dict
from dimgpt.text.byte_level import LILLM_SPECIAL_TOKENS, TOYGPT_SPECIAL_TOKENS
from dimgpt.training.optimizer import learning_rate_at

PUBLISHED = PRESETS["dimensiongpt-0.2b"]


def test_the_published_model_has_its_published_shape():
    model = PUBLISHED.model
    assert model == ModelConfig()
    assert (model.vocab_size, model.context_length, model.window_size) == (32_000, 512, 256)
    assert (model.embedding_dim, model.num_layers, model.ffn_dim) == (1024, 16, 2730)
    assert (model.num_heads, model.num_kv_heads, model.head_dim) == (16, 4, 64)
    assert model.dropout == 0.0


def test_the_published_model_has_its_published_number_of_parameters():
    width, vocab, ffn = 1024, 32_000, 2730
    attention = 2 * width * width + 2 * width * 4 * 64
    block = attention + 3 * width * ffn + 2 * width
    assert num_parameters(PUBLISHED.model) == 16 * block + vocab * width + width


@pytest.mark.parametrize("stage", ["pretraining", "finetuning"])
def test_a_published_step_is_524_288_tokens(stage):
    config = getattr(PUBLISHED, stage)
    assert config == TrainingConfig()
    assert config.sequences_per_step * PUBLISHED.model.context_length == 524_288


def test_the_published_run_is_52_428_800_000_tokens():
    run = PUBLISHED.pretraining
    assert (run.max_steps, run.warmup_steps, run.decay_steps) == (100_000, 2_000, 100_000)
    assert run.sequences_per_step * 512 * run.max_steps == 52_428_800_000
    assert (run.learning_rate, run.min_learning_rate) == (6e-4, 6e-5)
    assert (run.adam_betas, run.adam_eps, run.weight_decay) == ((0.9, 0.95), 1e-5, 0.1)
    assert run.max_grad_norm == 1.0


def test_the_published_mixture_has_its_multipliers():
    multipliers = {(source.group, source.multiplier) for source in PUBLISHED.data.sources}
    assert multipliers == {
        ("Common Crawl", 1.0),
        ("Wikipedia", 4.0),
        ("French news", 0.3),
        ("French books", 0.2),
        # 2.0 in the original, of smaller sets: see the shares.
        ("French institutions", 0.9),
        ("Others", 0.07),
    }
    assert PUBLISHED.data.vocab_size == PUBLISHED.model.vocab_size
    assert PUBLISHED.data.compose_accents is False
    assert PUBLISHED.data.validation_ratio == 0.001
    assert PUBLISHED.data.min_document_characters == 64


# Group -> training tokens and multiplier, as published.
PUBLISHED_TOKENS = {
    "Common Crawl": (35_821_271_160, 1.0),
    "Wikipedia": (1_626_389_831, 4.0),
    "French news": (11_308_851_150, 0.3),
    "French books": (2_796_450_308, 0.2),
    "French institutions": (147_034_958, 2.0),
    "Others": (7_287_322, 2.0),
}


def test_the_published_shares_are_tokens_times_multiplier():
    weights = {group: tokens * factor for group, (tokens, factor) in PUBLISHED_TOKENS.items()}
    expected = {group: weight / sum(weights.values()) for group, weight in weights.items()}
    assert pytest.approx(expected, abs=1e-4) == PUBLISHED_SHARES
    assert PUBLISHED.data.published_shares == PUBLISHED_SHARES


def test_the_mixture_that_can_be_had_today_has_the_published_shares_within_a_point():
    weights = dict.fromkeys(PUBLISHED_TOKENS, 0.0)
    for source in DIMENSIONGPT_SOURCES:
        assert source.expected_bytes is not None, source.name
        size = min(source.expected_bytes, source.max_bytes or source.expected_bytes)
        weights[source.group] += size * source.multiplier
    for group, weight in weights.items():
        share = weight / sum(weights.values())
        assert share == pytest.approx(PUBLISHED_SHARES[group], abs=0.01), group
    assert expected_shortfalls(PUBLISHED.data) == []


def test_the_corpus_that_can_be_had_today_is_about_250_gb():
    wanted = [(source.max_bytes, source.expected_bytes) for source in DIMENSIONGPT_SOURCES]
    total = sum(limit or expected or 0 for limit, expected in wanted)
    assert total == pytest.approx(250e9, rel=0.03)


def test_only_the_tokenized_news_are_cleaned_by_their_own_rule_and_read_in_all_splits():
    rules = {source.name: source.cleaning for source in DIMENSIONGPT_SOURCES}
    assert {name for name, rule in rules.items() if rule == "detokenize"} == {"news"}
    news = next(source for source in DIMENSIONGPT_SOURCES if source.name == "news")
    for split in ("train", "validation", "test"):
        assert fnmatchcase(f"default/{split}/0000.parquet", news.files)


@pytest.mark.parametrize(
    "source",
    [*DIMENSIONGPT_SOURCES, OPENWEBTEXT, *TOYGPT_SOURCES, *DIMENSIONGPT_CONVERSATIONS]
    + [*LILLM_CONVERSATIONS, FRENCH_INSTRUCT],
    ids=lambda source: source.name,
)
def test_a_published_source_says_where_it_is_and_under_which_licence(source):
    owner, name = source.path.removeprefix("hf://datasets/").split("/")
    assert owner
    assert name
    assert source.licence
    assert from_dict(type(source), to_dict(source)) == source


def test_the_six_configurations_of_dimensiongpt_instruct_are_read():
    configurations = {
        name
        for group in DIMENSIONGPT_CONVERSATIONS
        for name in (group.hub_config, group.system_prompts_hub_config)
    }
    assert configurations == {
        f"{group}_{kind}"
        for group in ("human", "chatbot", "dimension_gpt")
        for kind in ("conversations", "preprompts")
    }


def test_the_published_conversations_have_their_ratios_and_system_prompts():
    groups = {group.name: group for group in PUBLISHED.data.conversations}
    assert {name: group.ratio for name, group in groups.items()} == {
        "human": 0.099,
        "chatbot": 0.9,
        "dimension_gpt": 0.001,
    }
    assert {name: group.system_prompt_ratios for name, group in groups.items()} == {
        "human": {"human": 0.3},
        "chatbot": {"chatbot": 0.5, "dimension_gpt": 0.4},
        "dimension_gpt": {"dimension_gpt": 1.0},
    }


def test_the_published_model_was_validated_on_its_chatbot_behind_its_one_prompt():
    held_out = {
        group.name: (group.validation_ratio, group.validation_system_prompt)
        for group in PUBLISHED.data.conversations
    }
    assert held_out == {
        "human": (0, None),
        "chatbot": (0.01, PUBLISHED.system_prompt),
        "dimension_gpt": (0, None),
    }
    assert PUBLISHED.data.later_conversations == "uniform"
    assert PRESETS["lillm-39m"].data.later_conversations == "by_length"
    assert PUBLISHED.data.instruction_weight == 0.1


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_can_be_run_from_text_to_chat(preset):
    assert preset.model.vocab_size == preset.data.vocab_size
    assert preset.data.sources
    assert preset.prompt
    if not preset.name.startswith("toygpt"):  # whose vocabulary has no tokens for roles
        assert preset.data.conversations
        assert preset.questions
    groups = {group.name for group in preset.data.conversations if group.system_prompts_path}
    for group in preset.data.conversations:
        assert set(group.system_prompt_ratios) <= groups
    published = preset.name.startswith(("lillm", "toygpt"))  # theirs ended before its schedule
    for run in (preset.pretraining, preset.finetuning):
        assert run.warmup_steps + run.num_decay_steps <= run.max_steps * 1.02 or published
        assert run.checkpoint_interval <= run.max_steps


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("dimensiongpt-0.2b", 208_929_792),
        ("lillm-39m", 39_596_544),
        ("lillm-300m", 291_554_304),
        ("toygpt-small", 123_705_942),
        ("toygpt-medium", 253_058_134),
        ("toygpt-large", 1_311_585_366),
    ],
)
def test_a_published_model_has_its_published_size(name, parameters):
    assert num_parameters(PRESETS[name].model) == parameters


@pytest.mark.parametrize("name", ["toygpt-small", "toygpt-medium", "toygpt-large"])
def test_toygpt_stops_keeps_drops_and_repeats_as_the_original(name):
    preset = PRESETS[name]
    run, model, sampling = preset.pretraining, preset.model, preset.sampling
    assert (run.patience, run.keep_best, run.keep_checkpoints) == (10, 2, 1)
    assert (run.decay_vectors, run.weight_decay, run.max_grad_norm) == (True, 0.1, 1e9)
    assert (run.max_steps, run.validation_interval) == (732_000, 7_320)
    assert (model.dropout, model.attention_dropout) == (0.1, 0.1)
    assert set(model.dropout_places) == {"embedding", "outputs", "qkv", "stream"}
    assert (sampling.temperature, sampling.max_new_tokens) == (0.0, 300)
    assert (sampling.top_repeat_penalty, sampling.repetition_penalty) == (1.3, 1.0)


def test_dropout_is_off_and_where_the_original_has_it():
    for name in ("demo", "french-5m", "dimensiongpt-0.2b", "lillm-39m", "lillm-300m"):
        model = PRESETS[name].model
        assert (model.dropout, model.attention_dropout) == (0.0, 0.0)
        places = ("outputs",) if name.startswith("lillm") else ("embedding", "outputs")
        assert model.dropout_places == places


@pytest.mark.parametrize("name", ["lillm-39m", "lillm-300m"])
def test_lillm_is_fine_tuned_with_its_published_settings(name):
    run, data = PRESETS[name].finetuning, PRESETS[name].data
    assert (run.learning_rate, run.min_learning_rate, run.warmup_steps) == (3e-4, 3e-4, 0)
    assert (run.batch_size, run.accumulation_steps, run.max_steps) == (64, 8, 2_500)
    assert (run.adam_betas, run.adam_eps, run.weight_decay) == ((0.9, 0.999), 1e-8, 0.01)
    assert (run.decay_vectors, run.max_grad_norm) == (True, 1.0)
    assert (run.validation_interval, run.validation_batches) == (20, 5)
    assert (data.packing, data.instruction_weight) == ("pad", 0.0)
    assert sum(group.ratio for group in data.conversations) == pytest.approx(1)


def test_the_special_tokens_of_the_presets_are_those_of_the_tokenizers():
    assert PRESETS["lillm-39m"].data.tokenizer.special_tokens == LILLM_SPECIAL_TOKENS
    assert PRESETS["toygpt-small"].data.tokenizer.special_tokens == TOYGPT_SPECIAL_TOKENS


def test_a_preset_has_the_name_it_is_found_by():
    assert [preset.name for preset in PRESETS.values()] == list(PRESETS)
    assert get_preset("demo") is PRESETS["demo"]


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'nope': choose one of demo, french-5m, dimensiongpt"):
        get_preset("nope")


@pytest.mark.parametrize("part", PARTS)
def test_any_preset_takes_any_part_of_the_modern_recipe(part):
    if part == "cautious decay":
        parts = ("Muon", part)
    else:
        parts = (part,)
    for preset in PRESETS.values():
        changed = with_parts(preset, parts)
        kept = {**to_dict(changed.model), **to_dict(changed.pretraining)}
        assert PARTS[part].items() <= kept.items()
        assert changed.data == preset.data


def test_squared_relu_keeps_the_number_of_parameters():
    preset = get_preset("french-5m")
    changed = with_parts(preset, ["squared ReLU"])
    numbers = [num_parameters(p.model) for p in (preset, changed)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.001)


def test_the_long_cool_down_ends_with_the_run():
    config = with_parts(get_preset("french-5m"), ["long cool-down"]).pretraining
    rates = [learning_rate_at(step, config) for step in (100, 560, 1_080, 1_600)]
    assert rates == pytest.approx([3e-3, 3e-3, 1.5e-3, 0.0])


@pytest.mark.parametrize("name", ["french-5m", "dimensiongpt-0.2b"])
def test_the_modern_recipe_keeps_the_data_the_blocks_and_the_tokens_of_its_preset(name):
    plain, modern = get_preset(name), get_preset(f"{name}-modern")
    assert plain.data == modern.data
    assert plain.pretraining.max_steps == modern.pretraining.max_steps
    tied = [num_parameters(replace(p.model, tie_embeddings=True)) for p in (plain, modern)]
    assert tied[0] == pytest.approx(tied[1], rel=0.001)
    ratio = plain.finetuning.learning_rate / plain.pretraining.learning_rate
    first, then = modern.pretraining, modern.finetuning
    assert then.learning_rate == pytest.approx(ratio * first.learning_rate)
    assert then.muon_learning_rate == pytest.approx(ratio * first.muon_learning_rate)
