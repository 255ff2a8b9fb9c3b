"""The third stage, from data to the comparison of before and after."""

import dataclasses

import numpy as np
import pytest

from dimgpt.config import DataConfig, ModelConfig, PreferenceSourceConfig, SourceConfig
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline import preferences
from dimgpt.pipeline.data import prepare_files
from dimgpt.pipeline.preferences import compare_stages
from dimgpt.pipeline.training import build_trainer, match_model, save_trained
from dimgpt.pipeline.vocabulary import prepare_vocabulary
from dimgpt.presets.small import DEMO
from dimgpt.runtime import choose_runtime
from dimgpt.settings import override
from dimgpt.training.journal import read_history
from dimgpt.weights.store import load_model, save_model
from dimgpt.workspace import Workspace, load_vocabulary

CPU = choose_runtime("fp32", "cpu")
MODEL = ModelConfig(
    vocab_size=250,
    context_length=160,
    embedding_dim=16,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    ffn_dim=24,
    init_std=0.3,
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A workspace with pairs and a fine-tuned model."""
    folder = tmp_path_factory.mktemp("preferences")
    data = DataConfig(
        sources=(SourceConfig(name="stories", path="demo://stories/40"),),
        preferences=(PreferenceSourceConfig(name="pairs", path="demo://preferences/60"),),
        vocab_size=250,
        validation_ratio=0.2,
        num_workers=1,
    )
    run = override(
        DEMO.preferences,
        batch_size=2,
        accumulation_steps=2,
        learning_rate=1e-3,
        warmup_steps=1,
        decay_steps=5,  # a number: a shorter run, which is continued, has the same rates
        max_steps=6,
        validation_interval=3,
        validation_batches=2,
        checkpoint_interval=3,
    )
    preset = dataclasses.replace(DEMO, name="toy", data=data, preferences=run)
    workspace = Workspace(
        preset=preset, data_root=folder / "data", models_root=folder / "models", data_name="toy"
    )
    tokenizer = prepare_vocabulary(workspace)
    prepare_files(workspace, tokenizer)
    save_model(Transformer(MODEL), workspace.model_dir("finetuning"), tokenizer)
    return match_model(workspace, "preferences")


def losses(workspace):
    history = read_history(workspace.run_dir("preferences") / "history.jsonl")
    return [record["loss"] for record in history if record["kind"] == "step"]


@pytest.mark.slow
def test_a_model_learns_the_pairs_and_a_stopped_run_goes_on_with_the_same_reference(
    prepared, monkeypatch
):
    whole = override(prepared, preset=override(prepared.preset, name="whole"))
    base = load_model(prepared.model_dir("finetuning"))
    tokenizer = load_vocabulary(prepared)
    for workspace in (whole, prepared):
        save_model(base, workspace.model_dir("finetuning"), tokenizer)
    build_trainer(whole, "preferences", runtime=CPU).fit()
    assert losses(whole)[0] == pytest.approx(np.log(2), abs=1e-6)

    short = override(prepared.preset.preferences, max_steps=3)
    half = override(prepared, preset=override(prepared.preset, preferences=short))
    build_trainer(half, "preferences", runtime=CPU).fit()
    monkeypatch.delattr(preferences, "_log_probabilities")  # the reference is not made again
    trainer = build_trainer(prepared, "preferences", runtime=CPU)
    summary = trainer.fit()
    assert losses(prepared) == losses(whole)
    assert 0 <= summary.validation_accuracy <= 1 + 1e-6
    assert summary.bits_per_byte is None
    save_trained(prepared, "preferences", trainer)
    monkeypatch.undo()

    scores, answers = compare_stages(prepared, runtime=CPU, num_pairs=3)
    assert [row["model"] for row in scores] == ["toy-chat", "toy-preferred"]
    assert len(answers) == 3
    assert not any("---" in row["question"] for row in answers)  # no special tokens
    assert list(answers[0]) == ["question", "better", "toy-chat", "toy-preferred"]


@pytest.mark.slow
def test_another_fine_tuned_model_makes_another_reference(prepared):
    workspace = override(prepared, preset=override(prepared.preset, name="other"))
    tokenizer = load_vocabulary(prepared)
    for _ in range(2):
        save_model(Transformer(MODEL), workspace.model_dir("finetuning"), tokenizer)
        build_trainer(workspace, "preferences", runtime=CPU)
    assert len(list(workspace.run_dir("preferences").glob("reference-*.npy"))) == 2


def test_without_a_fine_tuned_model_the_way_to_it_is_said(prepared):
    workspace = override(prepared, preset=override(prepared.preset, name="untuned"))
    with pytest.raises(FileNotFoundError, match=r"untuned-chat: run `.* finetune --name untuned`"):
        match_model(workspace, "preferences")


def test_without_pairs_the_way_to_them_is_said(prepared):
    data = override(prepared.preset.data, preferences=())
    workspace = override(
        prepared, preset=override(prepared.preset, name="bare", data=data), data_name="bare"
    )
    prepare_files(workspace, prepare_vocabulary(workspace))
    with pytest.raises(ValueError, match="bare has no preferences to train on: prepare them with"):
        match_model(workspace, "preferences")
