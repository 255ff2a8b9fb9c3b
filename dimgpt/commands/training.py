"""The verbs that train, and `evaluate`."""

import contextlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dimgpt.commands.data import Folders
from dimgpt.config import LoraConfig, ModelConfig, Packing, TrainingConfig
from dimgpt.display.progress import TrainingBar
from dimgpt.display.tables import Table
from dimgpt.evaluation.french_probes import french_pairs
from dimgpt.evaluation.lm_eval_task import TASK_NAME, write_task
from dimgpt.generation.generator import TextGenerator
from dimgpt.pipeline.data import open_corpus
from dimgpt.pipeline.evaluation import (
    HeldOut,
    evaluate_documents,
    evaluate_probes,
    held_out_of,
    measure_copying,
)
from dimgpt.pipeline.preferences import compare_stages
from dimgpt.pipeline.training import (
    build_trainer,
    match_model,
    open_run,
    require_vocabulary_of_data,
    save_curves,
    save_trained,
)
from dimgpt.presets import get_preset
from dimgpt.runtime import choose_runtime, join_processes
from dimgpt.settings import override
from dimgpt.weights.originals import is_original, load_weights
from dimgpt.weights.store import has_tokenizer, load_tokenizer
from dimgpt.workspace import Stage, Workspace, load_vocabulary

_EXPLANATION = """\
Each margin is half of a 95 % confidence interval over documents (nan: fewer than 10).
The model predicts cleaned text. Raw text is longer, so the same bits give fewer bits per raw byte
(nan: raw bytes were not counted)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trained(Folders):
    """Flags that `train`, `finetune` and `prefer` share."""

    config: Path | None = None
    """JSON file with any of these settings, nested as here: {"training": {"max_steps": 9}}; flags
    override it."""
    device: str = "auto"
    """auto, cuda, mps or cpu."""
    branch_from: Path | None = None
    """Begin with the complete state of another run: its folder, one of its checkpoints/step-...,
    or the output/ of the original DimensionGPT."""
    training: TrainingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Finetune(_Trained):
    """Flags of `finetune`."""

    finetune_from: Path | None = None
    """Begin with the weights of this model (its folder, or a file of another system); the
    pretrained model with the same name if not given."""
    packing: Packing | None = None
    """Rows: concatenate, best_fit or pad; the choice of `prepare --data.packing` if not given."""
    lora: LoraConfig

    def run(self) -> None:
        """Fine-tune."""
        workspace = self.workspace(finetuning=self.training, lora=self.lora)
        changes = {"finetune_from": self.finetune_from, "packing": self.packing}
        workspace = match_model(override(workspace, **changes), "finetuning")
        _train(workspace, "finetuning", device=self.device, branch_from=self.branch_from)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prefer(_Trained):
    """Flags of `prefer`."""

    def run(self) -> None:
        """Train on preferences, and print a comparison with the model before."""
        workspace = match_model(self.workspace(preferences=self.training), "preferences")
        _train(workspace, "preferences", device=self.device, branch_from=self.branch_from)


@dataclass(frozen=True, kw_only=True, slots=True)
class Train(_Trained):
    """Flags of `train`."""

    model: ModelConfig

    def run(self) -> None:
        """Pretrain."""
        workspace = self.workspace(model=self.model, pretraining=self.training)
        workspace = match_model(workspace, "pretraining")
        size = workspace.preset.model.vocab_size
        if self.model.vocab_size not in (size, get_preset(self.preset).model.vocab_size):
            raise ValueError(
                f"model.vocab_size is {self.model.vocab_size}: {workspace.vocabulary_path} has "
                f"{size} tokens; leave model.vocab_size out, the vocabulary sets it"
            )
        _train(workspace, "pretraining", device=self.device, branch_from=self.branch_from)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resume:
    """Flags of `resume`."""

    run_name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="RUN")] = None
    """Name of a model, or folder of a run; the run that was trained last if not given."""
    models_root: Path = Path("models")
    """Folder with the models and their runs."""
    data_root: Path | None = None
    """Folder with the vocabularies and token files, if it was moved."""
    device: str = "auto"
    """auto, cuda, mps or cpu."""

    def run(self) -> None:
        """Continue the run."""
        workspace, stage = open_run(self.run_name, models_root=self.models_root)
        workspace = override(workspace, data_root=self.data_root)
        _train(workspace, stage, device=self.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate(Folders):
    """Flags of `evaluate`."""

    device: str = "auto"
    """auto, cuda, mps or cpu."""
    model: Path | None = None
    """Model folder or other weights; the pretrained model of the preset if not given."""
    split: HeldOut = "validation"
    """Documents to measure; `test` are those that `prepare --data.test-ratio` held out."""
    probes: bool = False
    """Score French minimal pairs instead (a right sentence and a wrong one); needs no data."""
    write_task: Path | None = None
    """Write the French minimal pairs into a folder instead, as a task of lm_eval."""

    def run(self) -> None:
        """Print loss and copying on held-out documents, the default.

        With `probes`, print the accuracy of each kind of French minimal pairs instead. With
        `write_task`, write these pairs for lm_eval and print its command.
        """
        workspace = self.workspace()
        folder = self.model or workspace.model_dir("pretraining")
        if self.write_task is not None:
            write_task(self.write_task, french_pairs())
            print(f"lm_eval --include_path {shlex.quote(str(self.write_task))} --tasks {TASK_NAME}")
            return
        runtime = choose_runtime(device=self.device)
        if self.probes:
            scores = evaluate_probes(folder, runtime=runtime)
            print(Table.of(scores, title=f"{folder}, French minimal pairs"))
            return
        if not is_original(folder) and has_tokenizer(folder):
            require_vocabulary_of_data(workspace, load_tokenizer(folder), source=folder)
        model = load_weights(folder)
        rows = evaluate_documents(workspace, model, runtime=runtime, split=self.split)
        print(Table.of(rows, title=f"{folder}, {self.split}"))
        print(_EXPLANATION)
        corpus, writer = open_corpus(workspace), TextGenerator(model, load_vocabulary(workspace))
        held_out = held_out_of(workspace, corpus, self.split)
        print(Table.of(measure_copying(corpus.train, held_out, writer), title="Copied"))


def _train(
    workspace: Workspace, stage: Stage, *, device: str, branch_from: Path | None = None
) -> None:
    """Train, save a finished model, and print the summary."""
    with join_processes(workspace.config(stage).precision, device) as runtime:
        bar = TrainingBar(description=stage)
        trainer = build_trainer(
            workspace, stage, runtime=runtime, observers=[bar], branch_from=branch_from
        )
        with contextlib.closing(bar):
            summary = trainer.fit()
        if runtime.is_first and summary.is_finished:
            save_curves(workspace, stage)
            save_trained(workspace, stage, trainer)
            if stage == "preferences":
                title = "Held-out pairs, before and after"
                print(Table.of(compare_stages(workspace, runtime=runtime)[0], title=title))
    if runtime.is_first:
        print(Table.of(summary.rows(), title=str(workspace.model_dir(stage))))
        if not summary.is_finished:
            raise KeyboardInterrupt("run the same command again to continue")
