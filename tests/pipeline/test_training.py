"""A run whose micro-batch is measured first, and the languages that a model's card names."""

import dataclasses
import json

import pytest

from dimgpt.config import DataConfig, ModelConfig, SourceConfig
from dimgpt.pipeline.card import languages_of
from dimgpt.pipeline.data import prepare_files
from dimgpt.pipeline.training import build_trainer, match_model, open_run
from dimgpt.pipeline.vocabulary import prepare_vocabulary
from dimgpt.presets import PRESETS
from dimgpt.runtime import choose_runtime
from dimgpt.settings import override
from dimgpt.training import micro_batch_search
from dimgpt.training.journal import read_history
from dimgpt.training.micro_batch_search import Measurement
from dimgpt.training.run_folder import lock_run
from dimgpt.workspace import Workspace

CPU = choose_runtime("fp32", "cpu")
SPEEDS = {2: 100.0, 4: 200.0, 8: 150.0}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder, demo = tmp_path_factory.mktemp("toy"), PRESETS["demo"]
    stories = SourceConfig(name="stories", path="demo://stories/200")
    data = DataConfig(sources=(stories,), conversations=(), vocab_size=250, num_workers=1)
    model = ModelConfig(
        context_length=32,
        window_size=8,
        embedding_dim=16,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        ffn_dim=24,
    )
    run = override(
        demo.pretraining, batch_size=2, accumulation_steps=4, validation_batches=4, max_steps=2
    )
    run = dataclasses.replace(run, warmup_steps=1, use_micro_batch_search=True)
    preset = dataclasses.replace(demo, name="toy", data=data, model=model, pretraining=run)
    roots = {"data_root": folder / "data", "models_root": folder / "models"}
    workspace = Workspace(preset=preset, **roots)
    prepare_files(workspace, prepare_vocabulary(workspace))
    return match_model(workspace, "pretraining")


@pytest.fixture
def measured(monkeypatch):
    """Let the measurements be made up; return the sizes that were measured."""
    sizes = []

    def measure(model, config, runtime):
        sizes.append(config.batch_size)
        speed = SPEEDS[config.batch_size]
        return Measurement(batch_size=config.batch_size, tokens_per_second=speed, peak_bytes=0)

    monkeypatch.setattr(micro_batch_search, "measure_micro_batch", measure)
    return sizes


@pytest.mark.slow
def test_the_fastest_division_reads_the_same_sequences(workspace, measured):
    trainer = build_trainer(workspace, "pretraining", runtime=CPU)
    assert measured == [2, 4, 8]
    assert trainer.config.batch_size == 4
    assert trainer.config.sequences_per_step == 8
    plain = override(workspace.preset.pretraining, use_micro_batch_search=False)
    preset = override(workspace.preset, pretraining=plain)
    other = build_trainer(override(workspace, preset=preset), "pretraining", runtime=CPU)
    rows = [
        [row for batch in each.data.batches(1) for row in batch.inputs.tolist()]
        for each in (trainer, other)
    ]
    assert [len(batch.inputs) for batch in trainer.data.batches(1)] == [4, 4]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_what_a_run_is_built_from_again_says_what_was_asked_for(workspace, measured):
    trainer = build_trainer(workspace, "pretraining", runtime=CPU)
    assert trainer.fit().is_finished
    run_dir = workspace.run_dir("pretraining")
    assert open_run(run_dir, models_root=workspace.models_root)[0].preset == workspace.preset
    state = json.loads((run_dir / "checkpoints/step-00000002/state.json").read_bytes())
    assert state["training"]["batch_size"] == 4


@pytest.mark.slow
def test_epochs_are_the_tokens_seen_in_those_of_all_sources(workspace, measured):
    trainer = build_trainer(workspace, "pretraining", runtime=CPU)
    trainer.fit()
    whole = sum(row["tokens"] for row in trainer.data.corpus.table())
    records = read_history(trainer.journal.path)
    assert records[-1]["tokens"] > 0
    assert [r["epochs"] for r in records] == [r["tokens"] / whole for r in records]


def test_a_second_trainer_is_refused_before_it_measures(workspace, measured):
    with (
        lock_run(workspace.run_dir("pretraining")),
        pytest.raises(RuntimeError, match="another training is running"),
    ):
        build_trainer(workspace, "pretraining", runtime=CPU)
    assert measured == []


def test_the_texts_of_a_preset_have_its_language() -> None:
    for preset in PRESETS.values():
        assert languages_of(preset.data.sources) == preset.languages
        assert len(preset.languages) == 1
    assert languages_of(PRESETS["demo"].data.conversations) == ("fr",)


def test_of_other_texts_no_language_is_told() -> None:
    assert languages_of(()) == ()
    source = PRESETS["lillm-39m"].data.sources[0]
    assert languages_of([dataclasses.replace(source, path="mine.txt")]) == ()
    wikipedia = next(s for s in PRESETS["toygpt-small"].data.sources if s.name == "wikipedia")
    assert languages_of([wikipedia]) == ("en",)  # and not French, which has the same address
