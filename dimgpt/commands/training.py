"""The verbs that train, and the one that measures what came out."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dimgpt.commands.folders import Folders
from dimgpt.config import ModelConfig, TrainingConfig
from dimgpt.display.progress import TrainingBar
from dimgpt.display.tables import Table
from dimgpt.pipeline import (
    build_trainer,
    evaluate_documents,
    find_run,
    match_vocabulary,
    open_run,
    require_vocabulary_of_data,
    save_curves,
    save_trained,
)
from dimgpt.presets import Preset, get_preset
from dimgpt.runtime import Runtime, choose_runtime, join_processes
from dimgpt.training.run_state import TrainingSummary
from dimgpt.weights.originals import is_original, load_weights
from dimgpt.weights.store import has_tokenizer, load_model
from dimgpt.workspace import Stage, Workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class Training(Folders):
    """What both verbs that train have in common."""

    config: Path | None = None
    """JSON with any of these settings, nested as here: {"training": {"max_steps": 9}}; flags go
    before it."""
    device: str = "auto"
    """auto, cuda, mps or cpu."""
    branch_from: Path | None = None
    """Begin with the whole state of another run: its folder, or one of its checkpoints/step-..."""
    training: TrainingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Train(Training):
    """Train a new model on the documents; run again to go on."""

    model: ModelConfig

    @classmethod
    def defaults(cls, preset: Preset) -> "Train":
        """Fill in what the preset says."""
        return cls(preset=preset.name, model=preset.model, training=preset.pretraining)

    def run(self) -> None:
        """Pretrain."""
        workspace = self.workspace(model=self.model, pretraining=self.training)
        matching = match_vocabulary(workspace)
        size, asked = matching.preset.model.vocab_size, self.model.vocab_size
        if asked not in (size, get_preset(self.preset).model.vocab_size):
            raise ValueError(
                f"model.vocab_size is {asked}: {workspace.vocabulary_path} has {size} tokens; "
                "leave model.vocab_size out, it follows the vocabulary"
            )
        _train(matching, "pretraining", device=self.device, branch_from=self.branch_from)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finetune(Training):
    """Train the pretrained model on the conversations; run again to go on."""

    @classmethod
    def defaults(cls, preset: Preset) -> "Finetune":
        """Fill in what the preset says."""
        return cls(preset=preset.name, training=preset.finetuning)

    def run(self) -> None:
        """Fine-tune."""
        workspace = self.workspace(finetuning=self.training)
        model = load_model(workspace.model_dir("pretraining")).config
        workspace = self.workspace(finetuning=self.training, model=model)
        _train(workspace, "finetuning", device=self.device, branch_from=self.branch_from)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resume:
    """Go on with a run, of either stage, with the settings that it has."""

    run_name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="RUN")] = None
    """Name of a model, or folder of a run; what was trained last if not given."""
    models_root: Path = Path("models")
    """Models and their runs."""
    device: str = "auto"
    """auto, cuda, mps or cpu."""

    @classmethod
    def defaults(cls, preset: Preset) -> "Resume":
        """Fill in nothing: the run says it all."""
        return cls()

    def run(self) -> None:
        """Train on."""
        workspace, stage = open_run(find_run(self.run_name, models_root=self.models_root))
        _train(workspace, stage, device=self.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate(Folders):
    """Measure a model on all held-out documents."""

    device: str = "auto"
    """auto, cuda, mps or cpu."""
    model: Path | None = None
    """Model folder or other weights; the pretrained model of the preset if not given."""

    @classmethod
    def defaults(cls, preset: Preset) -> "Evaluate":
        """Fill in what the preset says."""
        return cls(preset=preset.name)

    def run(self) -> None:
        """Print loss, accuracy, perplexity and bits per byte of each source."""
        workspace = self.workspace()
        folder = self.model or workspace.model_dir("pretraining")
        runtime = choose_runtime(device=self.device)
        if not is_original(folder) and has_tokenizer(folder):
            require_vocabulary_of_data(workspace, folder)
        model = load_weights(folder)
        print(Table.of(evaluate_documents(workspace, model, runtime=runtime), title=str(folder)))


def _train(
    workspace: Workspace, stage: Stage, *, device: str, branch_from: Path | None = None
) -> None:
    with join_processes(workspace.config(stage).precision, device) as runtime:
        summary = _fit(workspace, stage, runtime=runtime, branch_from=branch_from)
    if not runtime.is_first:
        return
    print(Table.of(summary.rows(), title=str(workspace.model_dir(stage))))
    if not summary.is_finished:
        raise KeyboardInterrupt("run the same command again to go on")


def _fit(
    workspace: Workspace, stage: Stage, *, runtime: Runtime, branch_from: Path | None
) -> TrainingSummary:
    """Train, and save what is finished."""
    bar = TrainingBar(description=stage)
    trainer = build_trainer(
        workspace, stage, runtime=runtime, observers=[bar], branch_from=branch_from
    )
    with contextlib.closing(bar):
        summary = trainer.fit()
    if runtime.is_first and summary.is_finished:
        save_curves(workspace, stage)
        save_trained(workspace, stage, trainer)
    return summary
