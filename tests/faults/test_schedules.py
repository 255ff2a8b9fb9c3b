"""Learning rates that fall to 0 long before the run ends."""

import dataclasses
import itertools

import pytest
import torch

from dimgpt.config import DataConfig, ModelConfig, SourceConfig, TrainingConfig
from dimgpt.pipeline.data import prepare_files
from dimgpt.pipeline.training import build_trainer, match_model
from dimgpt.pipeline.vocabulary import prepare_vocabulary
from dimgpt.presets import PRESETS
from dimgpt.runtime import choose_runtime
from dimgpt.settings import override
from dimgpt.workspace import Workspace

pytestmark = pytest.mark.slow

CPU = choose_runtime("fp32", "cpu")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Return a workspace with prepared stories, and a preset of toy size."""
    folder, demo = tmp_path_factory.mktemp("toy"), PRESETS["demo"]
    stories = SourceConfig(name="stories", path="demo://stories/200")
    preset = override(
        demo,
        name="toy",
        data=DataConfig(sources=(stories,), conversations=(), vocab_size=250, num_workers=1),
        model=ModelConfig(
            context_length=16,
            window_size=8,
            embedding_dim=16,
            num_layers=1,
            num_heads=2,
            num_kv_heads=1,
            ffn_dim=24,
        ),
        pretraining=TrainingConfig(
            batch_size=2,
            accumulation_steps=1,
            max_steps=40,
            validation_batches=1,
            precision="fp32",
        ),
    )
    roots = {"data_root": folder / "data", "models_root": folder / "models"}
    workspace = Workspace(preset=preset, **roots)
    prepare_files(workspace, prepare_vocabulary(workspace))
    return match_model(workspace, "pretraining")


@pytest.fixture
def train(workspace, tmp_path, caplog):
    """Return a function that trains: what was said before the first step, and the idle steps."""

    def train(**settings):
        run = dataclasses.replace(workspace.preset.pretraining, **settings)
        own = override(
            workspace,
            preset=override(workspace.preset, pretraining=run),
            models_root=tmp_path / "models",
        )
        trainer, weights = build_trainer(own, "pretraining", runtime=CPU), []

        def remember(record):
            if record["kind"] in ("start", "step"):
                weights.append([p.detach().clone() for p in trainer.model.parameters()])

        trainer.journal.observers.append(remember)
        said = [r.getMessage() for r in caplog.records if "learn nothing" in r.getMessage()]
        trainer.fit()
        idle = sum(
            all(map(torch.equal, before, after)) for before, after in itertools.pairwise(weights)
        )
        return said, idle

    return train


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize(
    ("warmup_steps", "decay_steps", "num_idle"), [(1, 5, 35), (0, 1, 40), (10, 28, 3)]
)
def test_steps_that_would_learn_nothing_are_said_before_the_first(
    train, optimizer, schedule, warmup_steps, decay_steps, num_idle, fault
):
    (line,), idle = train(
        optimizer=optimizer,
        schedule=schedule,
        warmup_steps=warmup_steps,
        decay_steps=decay_steps,
        min_learning_rate=0.0,
    )
    assert f"{num_idle} of 40 steps learn nothing" in line
    assert line.endswith(f"raise decay_steps ({decay_steps}) or min_learning_rate")
    assert "\n" not in line
    assert idle == num_idle
    fault(33)


@pytest.mark.parametrize(
    "settings", [{"decay_steps": None}, {"min_learning_rate": 1e-4}, {"schedule": "wsd"}], ids=str
)
def test_nothing_is_said_where_all_steps_but_the_last_learn(train, settings):
    fast_fall = {"warmup_steps": 1, "decay_steps": 5, "min_learning_rate": 0.0}
    said, num_idle = train(**(fast_fall | settings))
    assert said == []
    assert num_idle <= 1  # the rate of the last step may be 0
