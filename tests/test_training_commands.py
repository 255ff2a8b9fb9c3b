"""`train --config`, `resume` and `--branch-from`: no setting is typed twice."""

import json
import shutil
from pathlib import Path

import pytest

from dimgpt.cli import main
from dimgpt.files import sha256_of
from dimgpt.training.journal import read_history
from dimgpt.weights.store import load_model

CONFIG = {
    "name": "toy",
    "device": "cpu",
    "data_root": "my data",
    "model": {
        "context_length": 96,
        "window_size": 8,
        "embedding_dim": 16,
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 1,
        "ffn_dim": 24,
    },
    "training": {
        "batch_size": 2,
        "warmup_steps": 1,
        "max_steps": 6,
        "precision": "fp32",
        "validation_batches": 1,
        "validation_interval": 3,
        "checkpoint_interval": 2,
        "keep_checkpoints": 9,
        "adam_betas": [0.9, 0.99],
    },
}
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_curves")]
PRETRAINING = Path("models/toy-runs/pretraining")
PREPARE = [
    *("prepare", "--name", "toy", "--data-root", "my data", "--data.vocab-size", "300"),
    *("--data.num-workers", "1", "--conversations", "demo://conversations/60"),
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main([*PREPARE, "--sources", "demo://stories/200"])
    return folder


@pytest.fixture
def here(prepared, tmp_path, monkeypatch):
    """A folder with data and `run.json`, in which nothing was trained."""
    shutil.copytree(prepared / "my data", tmp_path / "my data")
    (tmp_path / "run.json").write_text(json.dumps(CONFIG))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def finished(prepared):
    """The models of a training that ran to its end, to be copied."""
    (prepared / "run.json").write_text(json.dumps(CONFIG))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(prepared)
        main(["train", "--config", "run.json"])
    return prepared / "models"


@pytest.fixture
def trained(here, finished):
    """The folder with data and `run.json` after that training."""
    shutil.copytree(finished, here / "models")
    return here


def steps(run_dir):
    records = read_history(run_dir / "history.jsonl")
    return [record["step"] for record in records if record["kind"] == "step"]


def settings(run_dir):
    newest = sorted((run_dir / "checkpoints").glob("step-*"))[-1]
    return json.loads((newest / "state.json").read_text())


def cut_back(run_dir, step):
    """Bring a run to where it was killed after a step."""
    for path in (run_dir / "checkpoints").iterdir():
        if int(path.name.split("-")[1]) > step:
            shutil.rmtree(path)


def complaint(words):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert isinstance(stop.value.code, str)
    assert "\n" not in stop.value.code
    return stop.value.code


def test_a_file_gives_the_settings_and_flags_go_before_it(here):
    main(["train", "--config", "run.json", "--training.max-steps", "4", "--name=toy"])
    assert steps(PRETRAINING) == [1, 2, 3, 4]
    used = settings(PRETRAINING)
    assert used["model"]["embedding_dim"] == 16
    assert used["training"]["adam_betas"] == [0.9, 0.99]
    assert used["training"]["max_steps"] == 4
    assert used["training"]["learning_rate"] == 3e-3, "the preset's, which nobody changed"


def test_a_file_may_name_its_preset(here, capsys):
    Path("run.json").write_text('{"preset": "dimensiongpt-0.2b", "training": {"seed": 3}}')
    with pytest.raises(SystemExit):
        main(["train", "--config=run.json", "--help"])
    shown = capsys.readouterr().out
    assert "(default: 2730)" in shown
    assert "(default: 3)" in shown


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not JSON"),
        ("[1]", "must contain an object of settings"),
        ('{"training": {"max_step": 3}}', "no field 'max_step'"),
        ('{"steps": 3}', "no field 'steps'"),
        ('{"data_root": 3}', "data_root is 3: it must be a text"),
        ('{"training": {"max_steps": 0}}', "max_steps is 0"),
        ('{"training": 3}', "must be an object"),
        ('{"preset": "nope"}', "choose one of demo"),
        ('{"stage": "pretraining", "preset": {"name": "toy"}}', "dimgpt resume "),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(here, content, reason):
    Path("run.json").write_text(content)
    assert reason in complaint(["train", "--config", "run.json"])
    assert "nothing.json" in complaint(["train", "--config", "nothing.json"])
    assert not Path("models").exists()


def test_resume_needs_no_setting_and_leads_to_the_same_model(trained, capsys):
    whole = sha256_of(Path("models/toy/model.safetensors"))
    for words in (["resume"], ["resume", "toy"], ["resume", str(PRETRAINING)]):
        cut_back(PRETRAINING, 4)
        shutil.rmtree("models/toy")
        main([*words, "--device", "cpu"])
        assert "resuming at step 4" in capsys.readouterr().out
        assert sha256_of(Path("models/toy/model.safetensors")) == whole
        assert steps(PRETRAINING) == [1, 2, 3, 4, 5, 6]


def test_resume_finds_data_that_were_moved(trained, capsys):
    cut_back(PRETRAINING, 4)
    Path("my data").rename("moved data")
    assert complaint(["resume", "toy"]).endswith("name the folder of your data with --data-root")
    main(["resume", "toy", "--data-root", "moved data", "--device", "cpu"])
    assert "resuming at step 4" in capsys.readouterr().out
    cut_back(PRETRAINING, 4)
    main(["resume", "toy", "--device", "cpu"])
    assert "resuming at step 4" in capsys.readouterr().out


def test_resume_takes_the_stage_that_was_trained_last(trained, capsys):
    Path("tune.json").write_text(
        json.dumps({key: CONFIG[key] for key in ("name", "device", "data_root", "training")})
    )
    main(["finetune", "--config", "tune.json"])
    cut_back(Path("models/toy-runs/finetuning"), 4)
    capsys.readouterr()
    main(["resume", "toy", "--device", "cpu"])
    assert "models/toy-chat" in capsys.readouterr().out


def test_resume_says_what_is_missing_moved_or_damaged(here, finished):
    assert "no run in models: begin one" in complaint(["resume"])
    assert "no run of 'toy' in models" in complaint(["resume", "toy"])
    shutil.copytree(finished, "models")
    shutil.copytree("models/toy-runs", "models/other-runs")
    assert "rename the folder to" in complaint(["resume", "other"])
    (PRETRAINING / "run.json").write_text("{}")
    assert "run.json is damaged" in complaint(["resume", "toy"])


def test_a_cool_down_branches_into_a_model_of_its_own_from_the_same_data(trained):
    trunk = sha256_of(Path("models/toy/model.safetensors"))
    branch = ["train", "--config", "run.json", "--name", "cool", "--data-name", "toy"]
    branch += ["--branch-from", str(PRETRAINING / "checkpoints" / "step-00000004")]
    schedule = ["--training.schedule", "wsd", "--training.decay-steps", "3"]
    main([*branch, *schedule])
    run_dir = Path("models/cool-runs/pretraining")
    assert steps(run_dir) == [1, 2, 3, 4, 5, 6]
    assert sha256_of(Path("models/toy/model.safetensors")) == trunk
    assert Path("models/cool/model.safetensors").exists()
    cut_back(run_dir, 4)
    main(["resume", "cool", "--device", "cpu"])
    assert settings(run_dir)["training"]["schedule"] == "wsd"


def test_a_fine_tuning_has_its_own_dropout_in_the_model_that_it_trains(trained, capsys):
    settings_of = ("name", "device", "data_root", "training")
    Path("tune.json").write_text(json.dumps({key: CONFIG[key] for key in settings_of}))
    tune = ["finetune", "--config", "tune.json", "--training.attention-dropout", "0.2"]
    main([*tune, "--training.dropout", "0.3", "--training.max-steps", "4"])
    run_dir, rates = Path("models/toy-runs/finetuning"), ("dropout", "attention_dropout")
    assert [settings(run_dir)["model"][name] for name in rates] == [0.3, 0.2]
    models = [load_model(Path("models") / name) for name in ("toy", "toy-chat")]
    assert [model.config.dropout for model in models] == [0.0, 0.3]
    assert models[1].blocks[0].attention.attention_dropout == 0.2
    capsys.readouterr()
    main([*tune, "--training.dropout", "0.1"])
    shown = capsys.readouterr().out
    assert "dropout" in shown
    assert "0.3 -> 0.1" in shown
    assert steps(run_dir) == [1, 2, 3, 4, 5, 6]
    assert [settings(run_dir)["model"][name] for name in rates] == [0.1, 0.2]


def test_data_made_anew_under_the_same_name_are_refused(here):
    main(["train", "--config", "run.json", "--training.max-steps", "2"])
    vocabulary = Path("my data/toy/vocab.txt").read_bytes()
    shutil.rmtree("my data/toy/pretraining")
    main([*PREPARE, "--sources", "demo://stories/230"])
    assert Path("my data/toy/vocab.txt").read_bytes() == vocabulary
    before = sha256_of(PRETRAINING / "checkpoints" / "step-00000002" / "model.safetensors")
    assert "of other data (saved -> asked for: data: " in complaint(
        ["train", "--config", "run.json"]
    ).replace("another model or other", "other")
    after = sha256_of(PRETRAINING / "checkpoints" / "step-00000002" / "model.safetensors")
    assert after == before


def test_a_fine_tuning_refuses_a_base_model_that_was_trained_again(here):
    main(["train", "--config", "run.json", "--training.max-steps", "2"])
    tune = ["finetune", "--name", "toy", "--data-root", "my data", "--device", "cpu"]
    tune += ["--training.max-steps", "2", "--training.batch-size", "2"]
    tune += ["--training.precision", "fp32", "--training.validation-batches", "1"]
    main(tune)
    main(["train", "--config", "run.json", "--training.max-steps", "4"])  # the last rate is 0
    assert "base model: " in complaint([*tune, "--training.max-steps", "4"])


def lora(*more):
    """Fine-tune with adapters, in 4 steps unless `more` says otherwise."""
    settings_of = ("name", "device", "data_root", "training")
    Path("tune.json").write_text(json.dumps({key: CONFIG[key] for key in settings_of}))
    main(["finetune", "--config", "tune.json", "--lora.rank", "2", *more])


def test_adapters_resume_and_export_merged_and_leave_the_base_as_it_is(trained, capsys):
    base = sha256_of(Path("models/toy/model.safetensors"))
    lora("--lora.targets", "query", "up")
    assert "trains 144 of" in capsys.readouterr().out
    folder, run_dir = Path("models/toy-chat"), Path("models/toy-runs/finetuning")
    adapter = sha256_of(folder / "adapter_model.safetensors")
    card = (folder / "README.md").read_text()
    assert "| Trained parameters | 144 of" in card
    cut_back(run_dir, 4)
    shutil.rmtree(folder)
    main(["resume", "toy", "--device", "cpu"])
    assert sha256_of(folder / "adapter_model.safetensors") == adapter
    main(["export", str(folder), "--to", "safetensors", "--output", "merged"])
    merged, base_model = load_model(Path("merged")), load_model(Path("models/toy"))
    changed = {
        name
        for name, tensor in base_model.state_dict().items()
        if not tensor.equal(merged.state_dict()[name])
    }
    assert {name.split(".")[-2] for name in changed} == {"query", "up"}
    assert sha256_of(Path("models/toy/model.safetensors")) == base


def test_one_model_is_fine_tuned_twice_under_two_names(trained, capsys):
    lora("--packing", "concatenate", "--training.max-steps", "2")
    other = ["--name", "chat2", "--finetune-from", "models/toy", "--data-name", "toy"]
    lora("--lora.rank", "0", "--training.max-steps", "2", *other)
    cards = [Path(f"models/{name}-chat/README.md").read_text() for name in ("toy", "chat2")]
    assert ["| Rows | concatenate" in card for card in cards] == [True, False]
    assert ["adapters of the model toy" in card for card in cards] == [True, False]
    capsys.readouterr()
    main(["resume", "chat2", "--device", "cpu"])
    assert "models/chat2-chat" in capsys.readouterr().out


def test_an_imported_mistral_gets_adapters(trained):
    main(["export", "models/toy", "--to", "transformers", "--output", "mistral"])
    shutil.rmtree("models")
    main(["import", "mistral", "--name", "toy"])
    lora("--training.max-steps", "2")
    main(["export", "models/toy-chat", "--to", "transformers", "--output", "tuned"])
    assert Path("tuned/model.safetensors").exists()
