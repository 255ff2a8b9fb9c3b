"""Fine-tuning that begins with a model of another name, another folder or another system."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch

from dimgpt.config import (
    ConversationSourceConfig,
    DataConfig,
    ExportConfig,
    LoraConfig,
    ModelConfig,
    SourceConfig,
    TokenizerConfig,
)
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.data import open_data, prepare_files
from dimgpt.pipeline.evaluation import compare_answers
from dimgpt.pipeline.models import export
from dimgpt.pipeline.training import (
    build_model,
    build_trainer,
    match_model,
    open_run,
    save_trained,
)
from dimgpt.pipeline.vocabulary import prepare_vocabulary
from dimgpt.presets import PRESETS
from dimgpt.runtime import choose_runtime
from dimgpt.settings import override
from dimgpt.weights.store import load_model, save_model
from dimgpt.workspace import STAGES, Workspace, load_vocabulary

pytestmark = pytest.mark.slow

CPU = choose_runtime("fp32", "cpu")
SIZES = {
    "context_length": 64,
    "window_size": 64,
    "embedding_dim": 64,
    "num_layers": 1,
    "num_heads": 16,  # as the published model, whose files do not say it
    "num_kv_heads": 4,
    "ffn_dim": 24,
}


def prepared(folder, **changes):
    """Return a workspace with data and a base model, which nobody has trained."""
    data = DataConfig(
        sources=(SourceConfig(name="stories", path="demo://stories/200"),),
        conversations=(
            ConversationSourceConfig(
                name="talk", path="demo://conversations/200", validation_ratio=0.2
            ),
        ),
        vocab_size=300,
        num_workers=1,
        **changes,
    )
    run = dataclasses.replace(
        PRESETS["demo"].finetuning,
        batch_size=2,
        max_steps=2,
        warmup_steps=1,
        validation_batches=1,
        sample_interval=1,
        optimizer="adamw",
        muon_learning_rate=0.02,
        muon_warmup_steps=300,
        muon_weight_decay=0.0,
    )
    preset = dataclasses.replace(PRESETS["demo"], name="toy", data=data, finetuning=run)
    roots = {"data_root": folder / "data", "models_root": folder / "models"}
    workspace = Workspace(preset=preset, **roots)
    prepare_files(workspace, prepare_vocabulary(workspace))
    save_base(workspace, workspace.model_dir("pretraining"))
    return workspace


def save_base(workspace, folder, *, seed=0):
    tokenizer = load_vocabulary(workspace)
    torch.manual_seed(seed)
    model = Transformer(ModelConfig(vocab_size=tokenizer.vocab_size, **SIZES))
    save_model(model, folder, tokenizer)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("made"))


@pytest.fixture
def toy(made, tmp_path):
    for name in ("data", "models"):
        shutil.copytree(getattr(made, f"{name}_root"), tmp_path / name)
    return override(made, data_root=tmp_path / "data", models_root=tmp_path / "models")


def named(workspace, name, base, *, rank=0):
    """Return the workspace of a fine-tuning under another name."""
    preset = override(workspace.preset, name=name, lora=LoraConfig(rank=rank))
    other = override(workspace, preset=preset, data_name="toy", finetune_from=base)
    return match_model(other, "finetuning")


def trainer_of(workspace):
    return build_trainer(workspace, "finetuning", runtime=CPU)


def is_same(model, other):
    weights = other.state_dict()
    return all(tensor.equal(weights[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("system", ["a folder", "pt", "transformers"])
def test_it_begins_with_a_model_folder_or_a_file_of_another_system(toy, tmp_path, system):
    base = tmp_path / "elsewhere" / "base"
    save_base(toy, base, seed=3)
    model, path = load_model(base), base
    if system != "a folder":
        path = export(base, ExportConfig(target=system), output=tmp_path / "theirs")
        shutil.copy(base / "vocab.txt", path)
        (path,) = path.glob("*.pt") if system == "pt" else [path]
    begun = build_model(named(toy, "other", path), "finetuning")
    assert is_same(begun, model)
    run = override(toy.preset.finetuning, dropout=0.3)
    changed = override(toy, preset=override(toy.preset, finetuning=run))
    begun = build_model(named(changed, "other", path), "finetuning")
    assert begun.config.dropout == 0.3
    assert is_same(begun, model)


def test_a_run_keeps_where_it_began_and_refuses_another_base(toy):
    base, again = toy.models_root / "toy", toy.models_root / "again"
    save_base(toy, again, seed=1)
    begun = named(toy, "chat2", base)
    assert trainer_of(begun).fit().is_finished
    found, stage = open_run("chat2", models_root=toy.models_root)
    assert (found.base_path(stage), found.data_folder) == (base, toy.data_folder)
    trainer = trainer_of(found)
    assert trainer.fit().step == 2
    card = save_trained(found, stage, trainer) / "README.md"
    assert "| Base model | toy |" in card.read_text()
    with pytest.raises(ValueError, match="base model: .*or train under another name"):
        trainer_of(named(toy, "chat2", again)).fit()


def test_a_run_of_an_older_version_began_with_the_model_of_its_name(toy):
    trainer_of(match_model(toy, "finetuning")).fit()
    path = toy.run_dir("finetuning") / "run.json"
    recipe = json.loads(path.read_text())
    for name in ("finetune_from", "packing"):
        assert recipe.pop(name) is None
    path.write_text(json.dumps(recipe))
    found, stage = open_run("toy", models_root=toy.models_root)
    assert found.base_path(stage) == toy.models_root / "toy"
    assert trainer_of(found).fit().is_finished


def test_adapters_and_all_weights_are_trained_from_one_base_under_two_names(toy):
    base = toy.models_root / "toy"
    saved = {}
    for name, rank in (("full", 0), ("small", 2)):
        workspace = named(toy, name, base, rank=rank)
        trainer = trainer_of(workspace)
        trainer.fit()
        saved[name] = save_trained(workspace, "finetuning", trainer)
    assert (saved["small"] / "adapter_model.safetensors").is_file()
    tuned = [load_model(folder) for folder in saved.values()]
    assert not any(is_same(model, load_model(base)) for model in tuned)
    assert not is_same(*tuned)
    with pytest.raises(ValueError, match="this model has adapters itself; merge them"):
        trainer_of(named(toy, "smaller", saved["small"], rank=2))


def test_adapters_without_their_base_beside_them_are_refused_before_training(toy, tmp_path):
    save_base(toy, tmp_path / "elsewhere" / "base")
    inside = export(tmp_path / "elsewhere" / "base", ExportConfig(target="transformers"))
    theirs = toy.models_root / "theirs"
    shutil.copytree(inside, theirs)
    for base in (tmp_path / "elsewhere" / "base", theirs):
        with pytest.raises(ValueError, match=r"lora.rank 2: .* or import it with"):
            trainer_of(named(toy, "small", base, rank=2))
    assert not (toy.models_root / "small-runs").exists()


def test_a_run_that_would_write_over_its_base_is_refused(toy):
    save_base(toy, toy.models_root / "toy-chat")
    with pytest.raises(ValueError, match="this run saves its model there; give it another --name"):
        trainer_of(named(toy, "toy", toy.models_root / "toy-chat"))
    assert trainer_of(named(toy, "more", toy.models_root / "toy-chat")).fit().is_finished


def test_a_base_of_another_vocabulary_names_the_way_which_works(toy, tmp_path):
    data = override(toy.preset.data, vocab_size=280)
    preset = override(toy.preset, name="base", data=data)
    other = override(toy, preset=preset)
    prepare_vocabulary(other)
    base = tmp_path / "elsewhere" / "base"
    save_base(other, base)
    with pytest.raises(ValueError, match=r"the model's \(`prepare --name NEW --data.tokenizer"):
        trainer_of(named(toy, "chat2", base))
    tokenizer = TokenizerConfig(path=str(base / "vocab.txt"))
    preset = override(toy.preset, name="new", data=override(data, tokenizer=tokenizer))
    new = override(toy, preset=preset, finetune_from=base)
    prepare_files(new, prepare_vocabulary(new))
    assert trainer_of(match_model(new, "finetuning")).fit().is_finished


def test_what_is_no_model_or_has_no_tokenizer_is_said_with_the_next_step(toy, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing/config.json is missing"):
        named(toy, "chat2", tmp_path / "nothing")
    path = export(toy.models_root / "toy", ExportConfig(target="pt"), output=tmp_path / "pt")
    (file,) = path.glob("*.pt")
    alone = shutil.move(file, tmp_path / "alone.pt")
    with pytest.raises(FileNotFoundError, match="to fine-tune this model, import it with that"):
        trainer_of(named(toy, "chat2", Path(alone)))


def test_a_run_has_rows_of_its_own(toy):
    assert open_data(toy, "finetuning").row_use.startswith("concatenate")
    packed = named(override(toy, packing="best_fit"), "packed", toy.models_root / "toy")
    assert trainer_of(packed).data.row_use.startswith("best_fit")
    trainer_of(packed).fit()
    assert open_run("packed", models_root=toy.models_root)[0].packing == "best_fit"
    with pytest.raises(ValueError, match="packing is 'tight'"):
        open_data(override(toy, packing="tight"), "finetuning")


@pytest.fixture(scope="module")
def lillm(tmp_path_factory):
    """Data in lilLM's format, in which a system prompt has no place."""
    folder = tmp_path_factory.mktemp("lillm")
    workspace = prepared(folder, tokenizer=TokenizerConfig(kind="byte_level"))
    return override(workspace, preset=override(workspace.preset, system_prompt="Sois poli."))


def test_a_system_prompt_that_is_left_out_is_said_once_a_run(lillm, caplog):
    with caplog.at_level(logging.WARNING):
        trainer = trainer_of(match_model(lillm, "finetuning"))
        trainer.fit()
    texts = [record.getMessage() for record in caplog.records]
    assert len([text for text in texts if "the system prompt is left out" in text]) == 1


@pytest.mark.parametrize("name", ["toy", "lillm"])
def test_ten_questions_are_answered_side_by_side(request, name, caplog):
    workspace = request.getfixturevalue(name)
    for stage in STAGES[1:]:
        save_base(workspace, workspace.model_dir(stage), seed=4)
    rows = compare_answers(workspace, "preferences", runtime=CPU)
    assert len(rows) == 10
    assert all([*row] == ["question", "in the data", *STAGES] for row in rows)
    assert any(row["pretraining"] != row["finetuning"] for row in rows)
    assert [row["finetuning"] for row in rows] == [row["preferences"] for row in rows]
    two = compare_answers(workspace, "finetuning", runtime=CPU, num_questions=2)
    assert two == [{name: row[name] for name in [*row][:-1]} for row in rows[:2]]
    assert [row["question"] for row in rows[:6]] == list(workspace.preset.questions)
    assert [bool(row["in the data"]) for row in rows] == [False] * 6 + [True] * 4
    assert not [row for row in rows if {"<", "⮜"} & {*row["question"], *row["in the data"]}]
    assert not caplog.records
