"""The verb and the function that measure held-out documents, split by split."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dimgpt.cli import main
from dimgpt.config import ModelConfig
from dimgpt.evaluation.french_probes import french_pairs
from dimgpt.generation.generator import TextGenerator
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.data import open_corpus
from dimgpt.pipeline.evaluation import compare_probes, evaluate_documents, measure_copying
from dimgpt.presets import PRESETS
from dimgpt.runtime import choose_runtime
from dimgpt.settings import override
from dimgpt.weights.store import load_model, save_model
from dimgpt.workspace import Workspace, load_vocabulary

CPU = choose_runtime("fp32", "cpu")
SHAPE = {"num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "ffn_dim": 24, "window_size": None}
PREPARE = [
    *("prepare", "--name", "toy", "--sources", "demo://stories/120", "--data.vocab-size", "250"),
    *("--data.num-workers", "1", "--data.no-use-conversations-in-vocabulary"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data and a model, without a test split."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(PREPARE)
        workspace = Workspace(preset=override(PRESETS["demo"], name="toy"))
        torch.manual_seed(0)
        config = ModelConfig(vocab_size=250, context_length=256, embedding_dim=16, **SHAPE)
        save_model(
            Transformer(config), workspace.model_dir("pretraining"), load_vocabulary(workspace)
        )
    return folder


def loss_of(model, file):
    """Return the mean loss of all tokens but the first of each document, one at a time."""
    documents = [
        torch.from_numpy(np.array(file.document(n), dtype=np.int64))
        for n in range(file.num_documents)
    ]
    assert max(map(len, documents)) <= model.config.context_length
    losses = [
        F.cross_entropy(model(ids[None, :-1])[0], ids[1:], reduction="none") for ids in documents
    ]
    return torch.cat(losses).mean().item()


@pytest.mark.slow
def test_texts_that_training_holds_are_counted_and_a_model_that_knows_nothing_copies_nothing(
    folder, monkeypatch
):
    monkeypatch.chdir(folder)
    workspace = Workspace(preset=override(PRESETS["demo"], name="toy"))
    corpus, tokenizer = open_corpus(workspace), load_vocabulary(workspace)
    model = load_model(workspace.model_dir("pretraining"))
    itself = measure_copying(corpus.train, corpus.train, TextGenerator(model, tokenizer))
    count = corpus.train.files[0].num_documents
    assert itself["Held-out texts in the training files"] == f"{count} of {count}"
    assert itself["Held-out tokens copied in runs of 20 and more"].startswith("100.0% of ")
    assert itself["Sampled tokens copied in runs of 20 and more"].startswith("0.0% of ")
    held_out = measure_copying(corpus.train, corpus.validation)
    assert held_out["Held-out texts in the training files"].startswith("0 of ")
    assert len(held_out) == 2


@pytest.mark.slow
def test_french_pairs_are_scored_without_data_and_written_as_a_task(
    folder, monkeypatch, tmp_path, capsys
):
    model = folder / "models" / "toy"
    monkeypatch.chdir(tmp_path)
    main(["evaluate", "--probes", "--device", "cpu", "--model", str(model)])
    *_, last = capsys.readouterr().out.splitlines()
    name, pairs, left_out, *shares = last.split()
    assert name == "all"
    assert int(pairs.replace(",", "")) + int(left_out.replace(",", "")) == len(french_pairs())
    assert 0.4 < float(shares[0]) < 0.65  # random weights; a wrong sentence is often the longer one
    main(["evaluate", "--write-task", "my task"])
    assert capsys.readouterr().out == ("lm_eval --include_path 'my task' --tasks dimgpt_french\n")
    assert (tmp_path / "my task" / "facts.jsonl").is_file()


def test_a_model_is_scored_beside_random_weights_of_its_shape(folder, monkeypatch):
    pairs = french_pairs()[::40]
    monkeypatch.setattr("dimgpt.pipeline.evaluation.french_pairs", lambda: pairs)
    workspace = Workspace(preset=override(PRESETS["demo"], name="toy"), data_root=folder / "data")
    model, tokenizer = load_model(folder / "models" / "toy"), load_vocabulary(workspace)
    rows = compare_probes(model, tokenizer, runtime=CPU)
    assert rows[-1]["kind"] == "all"
    for row in rows:  # the model is these very random weights
        assert row["this model"] == row["random weights"]
        assert row["chance"] == "50%"
    torch.nn.init.normal_(next(model.parameters()))
    changed = compare_probes(model, tokenizer, runtime=CPU)
    assert [row["random weights"] for row in changed] == [row["random weights"] for row in rows]
    assert changed != rows


@pytest.mark.slow
def test_the_test_split_is_measured_where_there_is_one_and_how_to_make_one_is_said(
    folder, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    evaluate = ["evaluate", "--name", "toy", "--device", "cpu"]
    with pytest.raises(SystemExit) as stop:
        main([*evaluate, "--split", "test"])
    assert "split is 'test': data/toy has no such split" in stop.value.code
    command = stop.value.code.split("`python -m dimgpt ")[1].split("`")[0]
    assert command == "prepare --name toy --data.test-ratio 0.01"
    main([*PREPARE, "--data.test-ratio", "0.2"])
    workspace = Workspace(preset=override(PRESETS["demo"], name="toy"))
    corpus = open_corpus(workspace)
    model = Transformer(ModelConfig(vocab_size=250, context_length=256, embedding_dim=16, **SHAPE))
    model.eval()
    for split, mixture in (("test", corpus.test), ("validation", corpus.validation)):
        [row] = evaluate_documents(workspace, model, runtime=CPU, split=split)
        assert row["documents"] == mixture.files[0].num_documents
        with torch.no_grad():
            assert row["loss"] == pytest.approx(loss_of(model, mixture.files[0]), abs=1e-5)
    capsys.readouterr()
    main([*evaluate, "--split", "test"])
    shown = capsys.readouterr().out
    assert "models/toy, test" in shown
    assert "Sampled tokens copied in runs of 20 and more" in shown
    [validation] = evaluate_documents(workspace, model, runtime=CPU)
    assert validation["documents"] == corpus.validation.files[0].num_documents
