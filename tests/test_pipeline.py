import dataclasses
import json
from pathlib import Path

import pytest
import torch

from dimgpt.config import ConversationSourceConfig, DataConfig, ModelConfig, SourceConfig
from dimgpt.data.conversation import Conversation, Message
from dimgpt.data.preparing import blocks
from dimgpt.files import sha256_of
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.data import open_corpus, open_data, prepare_files, read_reports
from dimgpt.pipeline.models import open_model
from dimgpt.pipeline.training import build_model, match_model
from dimgpt.pipeline.vocabulary import prepare_vocabulary
from dimgpt.presets import PRESETS
from dimgpt.runtime import choose_runtime
from dimgpt.settings import override
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.weights.store import save_model
from dimgpt.workspace import Workspace, customise_data, customise_training, load_data_config

DEMO = PRESETS["demo"]
FIXTURES = Path(__file__).parent / "fixtures"


def toy(tmp_path, *, name="toy", stories=60):
    data = DataConfig(
        sources=(SourceConfig(name="stories", path=f"demo://stories/{stories}"),),
        conversations=(ConversationSourceConfig(name="talk", path="demo://conversations/30"),),
        vocab_size=250,
        min_document_characters=16,
        num_workers=1,
    )
    preset = dataclasses.replace(DEMO, name=name, data=data)
    return Workspace(preset=preset, data_root=tmp_path / "data", models_root=tmp_path / "models")


def names(paths):
    return [source.name for source in customise_data(DEMO, sources=paths).data.sources]


def test_own_files_take_the_place_of_the_presets_under_their_own_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = ["texts/mes livres.jsonl.gz", "/a/é.txt", "hf://datasets/me/wiki-fr", "folder/", "."]
    assert names(paths) == ["mes livres", "é", "wiki-fr", "folder", tmp_path.name]
    assert names(["demo://stories/20", ".hidden/"]) == ["stories", "hidden"]


def test_own_files_of_one_name_are_kept_apart():
    assert names(["a/wiki.txt", "b/wiki.txt", "c/wiki.txt"]) == ["wiki", "wiki-2", "wiki-3"]


def test_without_own_files_the_presets_stay():
    assert customise_data(DEMO, sources=[], conversations=None, seed=None) == DEMO
    assert customise_data(DEMO, seed=3).data == override(DEMO.data, seed=3)


def test_quality_switches_are_changed_beside_the_other_settings():
    data = customise_data(
        DEMO, languages=["fr"], drop_near_duplicates=True, max_characters=None, test_ratio=0.1
    ).data
    expected = override(DEMO.data.quality, languages=("fr",), drop_near_duplicates=True)
    assert data == override(DEMO.data, quality=expected, test_ratio=0.1)


def test_a_vocabulary_of_conversations_skips_those_that_cannot_be_read(tmp_path):
    lines = [json.dumps({"user": f"bonjour {n}", "assistant": "salut"}) for n in range(30)]
    (tmp_path / "talk.jsonl").write_text("\n".join([*lines, "{"]))
    group = ConversationSourceConfig(name="talk", path=str(tmp_path / "talk.jsonl"))
    toy_data = toy(tmp_path)
    data = override(
        toy_data.preset.data, conversations=(group,), use_conversations_in_vocabulary=True
    )
    workspace = override(toy_data, preset=override(toy_data.preset, data=data))
    with pytest.raises(ValueError, match="talk.jsonl, line 31 is not JSON"):
        prepare_vocabulary(workspace)
    data = override(data, bad_records="skip")
    workspace = override(toy_data, preset=override(toy_data.preset, data=data))
    prepare_files(workspace, prepare_vocabulary(workspace))
    assert read_reports(workspace)[-1].dropped == {"unreadable": 1}


def test_a_stage_is_changed_alone():
    changed = customise_training(DEMO, "finetuning", max_steps=7, batch_size=None)
    assert changed.finetuning == override(DEMO.finetuning, max_steps=7)
    assert changed.pretraining == DEMO.pretraining
    with pytest.raises(ValueError, match="'pre': choose one of pretraining, finetuning"):
        customise_training(DEMO, "pre", max_steps=7)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "c:", "demo-chat", "demo-runs"])
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(ValueError, match="name is"):
        Workspace(preset=dataclasses.replace(DEMO, name=name))


def test_the_folders_of_two_names_never_meet(tmp_path):
    one, other = toy(tmp_path), toy(tmp_path, name="toy2")
    stages = ("pretraining", "finetuning")
    folders = [
        folder
        for workspace in (one, other)
        for stage in stages
        for folder in (
            workspace.data_dir(stage),
            workspace.model_dir(stage),
            workspace.run_dir(stage),
        )
    ]
    assert len(set(folders)) == len(folders)


@pytest.mark.slow
def test_a_second_preparation_changes_no_byte(tmp_path):
    workspace = toy(tmp_path)
    prepare_files(workspace, prepare_vocabulary(workspace))
    before = {path: sha256_of(path) for path in tmp_path.rglob("*") if path.is_file()}
    prepare_files(workspace, prepare_vocabulary(workspace))
    assert {path: sha256_of(path) for path in tmp_path.rglob("*") if path.is_file()} == before
    assert load_data_config(workspace) == workspace.preset.data
    assert match_model(workspace, "pretraining").preset.model.vocab_size == 250


@pytest.mark.slow
def test_each_source_is_reported_with_what_was_dropped(tmp_path):
    workspace = toy(tmp_path)
    prepare_files(workspace, prepare_vocabulary(workspace))
    stories, talk = read_reports(workspace)
    corpus = open_corpus(workspace)
    counts = [split.files[0].num_documents for split in (corpus.train, corpus.validation)]
    assert (stories.source, stories.num_documents) == ("stories", sum(counts))
    assert stories.num_documents + stories.dropped.total() == 60
    assert len(stories.sample_texts()) == 10
    assert (talk.source, talk.num_documents) == ("talk", 30)


def test_a_vocabulary_kept_for_other_sources_is_said(tmp_path, caplog):
    workspace = toy(tmp_path)
    prepare_files(workspace, prepare_vocabulary(workspace))
    prepare_vocabulary(workspace)
    assert caplog.text == ""
    prepare_vocabulary(toy(tmp_path, stories=70))
    assert "was made for other sources and is kept" in caplog.text


def test_what_is_not_there_is_said_before_anything_is_made(tmp_path):
    workspace = toy(tmp_path)
    group = ConversationSourceConfig(name="talk", path=str(tmp_path / "nothing.jsonl"))
    data = override(workspace.preset.data, conversations=(group,))
    with pytest.raises(FileNotFoundError, match="nothing.jsonl does not exist"):
        prepare_vocabulary(override(workspace, preset=override(workspace.preset, data=data)))
    (tmp_path / "data").write_text("a file")
    with pytest.raises(OSError, match="data"):
        prepare_vocabulary(workspace)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_vocabulary_of_another_size_is_refused_and_kept(tmp_path):
    workspace = toy(tmp_path)
    prepare_vocabulary(workspace)
    before = workspace.vocabulary_path.read_bytes()
    data = override(workspace.preset.data, vocab_size=260)
    with pytest.raises(ValueError, match="has 250 tokens: vocab_size is 260"):
        prepare_vocabulary(override(workspace, preset=override(workspace.preset, data=data)))
    assert workspace.vocabulary_path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"sources": 3}', '{"seed": "x"}', '{"a": 1}'])
def test_damaged_settings_of_the_data_are_said_with_their_path(tmp_path, content):
    workspace = toy(tmp_path)
    workspace.data_config_path.parent.mkdir(parents=True)
    workspace.data_config_path.write_text(content)
    with pytest.raises(ValueError, match=r"config.json is damaged .*prepare --name toy"):
        load_data_config(workspace)


def test_without_data_the_way_to_them_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="prepare --name toy"):
        open_corpus(toy(tmp_path))
    with pytest.raises(FileNotFoundError, match="prepare --preset demo"):
        open_corpus(toy(tmp_path, name="demo"))


def test_fine_tuning_refuses_a_model_of_another_vocabulary_of_the_same_size(tmp_path):
    workspace = toy(tmp_path)
    tokenizer = prepare_vocabulary(workspace)
    other = GreedyTokenizer([*tokenizer.tokens[:-2], tokenizer.tokens[-1], tokenizer.tokens[-2]])
    config = ModelConfig(
        vocab_size=250, embedding_dim=16, num_layers=1, num_heads=2, num_kv_heads=1, ffn_dim=8
    )
    folder = workspace.model_dir("pretraining")
    save_model(Transformer(config), folder, tokenizer)
    assert build_model(workspace, "finetuning").config == config
    save_model(Transformer(config), folder, other)
    with pytest.raises(ValueError, match="another vocabulary than"):
        build_model(workspace, "finetuning")


def test_the_settings_of_the_data_are_json_for_people(tmp_path):
    workspace = toy(tmp_path)
    prepare_files(workspace, prepare_vocabulary(workspace))
    values = json.loads(Path(workspace.data_config_path).read_text())
    assert values["sources"][0]["path"] == "demo://stories/60"


def test_a_dimensiongpt_file_opens_with_the_vocabulary_beside_it(tmp_path):
    config = ModelConfig(vocab_size=512, embedding_dim=64, num_layers=1, ffn_dim=32)
    model = Transformer(config)
    names = {
        "attention_norm": "norm_1",
        "ffn_norm": "norm_2",
        "attention.output": "attention.projection",
    }
    names |= {"gate": "linear_1", "up": "linear_2", "down": "linear_3"}
    original = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(f"{ours}.weight", f"{theirs}.weight")
        original[name] = tensor
    original["final_linear.weight"] = original["token_embedding.weight"]
    torch.save(original, tmp_path / "DimensionGPT.pt")
    vocabulary = FIXTURES / "dimensiongpt_sampling" / "vocab_512.txt"
    runtime = choose_runtime("fp32", "cpu")
    opened, tokenizer = open_model(
        tmp_path / "DimensionGPT.pt", runtime=runtime, vocabulary_path=vocabulary
    )
    ids = torch.tensor([tokenizer.encode("Bonjour, qui es-tu ?")])
    torch.testing.assert_close(opened(ids), model.eval()(ids))


@pytest.mark.slow
def test_conversations_without_an_answer_are_refused_before_training(tmp_path, monkeypatch):
    question = Conversation(messages=(Message(role="user", text="Combien font deux et deux ?"),))
    monkeypatch.setattr(blocks.demo_corpus, "conversations", lambda num, seed: [question] * num)
    workspace = toy(tmp_path)
    rows = "".join(f"Question {n} ?,Oui.\n" for n in range(30))
    (tmp_path / "good.csv").write_text("user,assistant\n" + rows)
    silent = override(workspace.preset.data.conversations[0], validation_ratio=0.0)
    good = ConversationSourceConfig(name="good", path=str(tmp_path / "good.csv"))
    data = override(workspace.preset.data, conversations=(silent, good))
    workspace = override(workspace, preset=override(workspace.preset, data=data))
    prepare_files(workspace, prepare_vocabulary(workspace))
    with pytest.raises(ValueError, match="the conversations of 'talk' have no answer"):
        open_data(workspace, "finetuning")
