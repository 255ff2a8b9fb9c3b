"""The verbs of the command line, each a dataclass whose fields are its flags.

Thin calls into the package: what a verb does is done in `pipeline.py` and below. How words become
flags is `__main__.py`'s matter.
"""

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dimgpt.config import DataConfig, ModelConfig, SamplingConfig, TrainingConfig
from dimgpt.customise import customise_data
from dimgpt.demo import run_notebooks
from dimgpt.display import Table
from dimgpt.generation.chat import ChatSession
from dimgpt.generation.generator import TextGenerator
from dimgpt.info import describe_folder, describe_preset, look_around
from dimgpt.pipeline import (
    Stage,
    Workspace,
    build_trainer,
    evaluate_documents,
    match_vocabulary,
    open_corpus,
    open_model,
    prepare_files,
    prepare_vocabulary,
    save_trained,
)
from dimgpt.presets import Preset, get_preset
from dimgpt.runtime import choose_runtime
from dimgpt.training.progress import ProgressBar
from dimgpt.weights.store import load_model


@dataclass(frozen=True, kw_only=True, slots=True)
class Folders:
    """Where data and models are."""

    preset: str
    """Settings to start from: demo, french-5m, dimensiongpt-0.2b."""
    name: str | None = None
    """Name of the folders in data/ and models/; the preset's if not given."""
    data_root: Path = Path("data")
    """Vocabularies and token files."""
    models_root: Path = Path("models")
    """Models and their runs."""

    def workspace(self, **changes: Any) -> Workspace:
        """Return the preset with changed fields, in these folders."""
        preset = get_preset(self.preset)
        preset = dataclasses.replace(preset, name=self.name or preset.name, **changes)
        return Workspace(preset=preset, data_root=self.data_root, models_root=self.models_root)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepare(Folders):
    """Train the vocabulary and write the token files."""

    sources: tuple[str, ...] = ()
    """Your own texts instead of the preset's: files or folders (.txt .jsonl .jsonl.gz .parquet)."""
    conversations: tuple[str, ...] = ()
    """Your own conversations instead of the preset's: files or folders (.jsonl .jsonl.gz)."""
    data: DataConfig

    @classmethod
    def defaults(cls, preset: Preset) -> "Prepare":
        """Fill in what the preset says."""
        return cls(preset=preset.name, data=preset.data)

    def run(self) -> None:
        """Write vocabulary and token files, and show the mixture."""
        if self.sources and self.data.sources != get_preset(self.preset).data.sources:
            raise ValueError("give either sources or data.sources.*, which describe them singly")
        preset = customise_data(
            self.workspace(data=self.data).preset,
            sources=self.sources,
            conversations=self.conversations,
        )
        workspace = dataclasses.replace(self.workspace(), preset=preset)
        with tqdm(desc="vocabulary", unit="char", unit_scale=True) as bar:
            tokenizer = prepare_vocabulary(workspace, progress=lambda done: _move(bar, done))
        with tqdm(desc="token files", unit="char", unit_scale=True) as bar:
            prepare_files(workspace, tokenizer, progress=lambda done: _move(bar, done))
        print(Table.of(open_corpus(workspace).table()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Train(Folders):
    """Train a new model on the documents; run again to go on."""

    device: str = "auto"
    """auto, cuda, mps or cpu."""
    model: ModelConfig
    training: TrainingConfig

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
        _train(matching, "pretraining", device=self.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finetune(Folders):
    """Train the pretrained model on the conversations; run again to go on."""

    device: str = "auto"
    """auto, cuda, mps or cpu."""
    training: TrainingConfig

    @classmethod
    def defaults(cls, preset: Preset) -> "Finetune":
        """Fill in what the preset says."""
        return cls(preset=preset.name, training=preset.finetuning)

    def run(self) -> None:
        """Fine-tune."""
        workspace = self.workspace(finetuning=self.training)
        model = load_model(workspace.model_dir("pretraining")).config
        workspace = self.workspace(finetuning=self.training, model=model)
        _train(workspace, "finetuning", device=self.device)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate(Folders):
    """Measure a model on all held-out documents."""

    device: str = "auto"
    """auto, cuda, mps or cpu."""
    model: Path | None = None
    """Model folder; the pretrained model of the preset if not given."""

    @classmethod
    def defaults(cls, preset: Preset) -> "Evaluate":
        """Fill in what the preset says."""
        return cls(preset=preset.name)

    def run(self) -> None:
        """Print loss, accuracy, perplexity and bits per byte of each source."""
        workspace = self.workspace()
        folder = self.model or workspace.model_dir("pretraining")
        runtime = choose_runtime(device=self.device)
        model = load_model(folder, device=runtime.device)
        print(Table.of(evaluate_documents(workspace, model, runtime=runtime), title=str(folder)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Generate:
    """Complete a text."""

    preset: str
    """Whose sampling settings to start from."""
    model: Path
    """Model folder, or a DimensionGPT .pt with its data/vocab.txt."""
    prompt: str = ""
    """Text to go on with."""
    sampling: SamplingConfig

    @classmethod
    def defaults(cls, preset: Preset) -> "Generate":
        """Fill in what the preset says."""
        folder = Workspace(preset=preset).model_dir("pretraining")
        return cls(preset=preset.name, model=folder, sampling=preset.sampling)

    def run(self) -> None:
        """Print the prompt and what follows, as it comes."""
        writer = TextGenerator(*open_model(self.model, runtime=choose_runtime()))
        _print_stream([self.prompt], writer.stream(self.prompt, self.sampling))


@dataclass(frozen=True, kw_only=True, slots=True)
class Chat:
    """Talk with a fine-tuned model; an empty line or Ctrl-D ends it."""

    preset: str
    """Whose sampling settings to start from."""
    model: Path
    """Model folder, or a DimensionGPT .pt with its data/vocab.txt."""
    system_prompt: str | None = None
    """What the conversation begins with."""
    sampling: SamplingConfig

    @classmethod
    def defaults(cls, preset: Preset) -> "Chat":
        """Fill in what the preset says."""
        return cls(
            preset=preset.name,
            model=Workspace(preset=preset).model_dir("finetuning"),
            system_prompt=preset.system_prompt,
            sampling=preset.sampling,
        )

    def run(self) -> None:
        """Read lines and stream answers."""
        model, tokenizer = open_model(self.model, runtime=choose_runtime())
        session = ChatSession(model, tokenizer, self.sampling, self.system_prompt)
        while question := _read_line():
            _print_stream(session.ask(question))


@dataclass(frozen=True, kw_only=True, slots=True)
class Info:
    """Show this machine, and the sizes of a preset or of a model folder."""

    preset: str
    """Preset to describe."""
    model: Path | None = None
    """Model folder to describe instead."""

    @classmethod
    def defaults(cls, preset: Preset) -> "Info":
        """Fill in what the preset says."""
        return cls(preset=preset.name)

    def run(self) -> None:
        """Print the tables."""
        print(Table.of(look_around(choose_runtime()), title="This machine"))
        if self.model is not None:
            print(Table.of(describe_folder(self.model), title=str(self.model)))
        else:
            print(Table.of(describe_preset(get_preset(self.preset)), title=self.preset))


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """Run the three notebooks on the demo corpus: data, two trainings, test."""

    output_dir: Path = Path("models/demo-runs/notebooks")
    """Gets the executed notebooks."""

    @classmethod
    def defaults(cls, preset: Preset) -> "Demo":
        """Return the defaults, which no preset changes."""
        return cls()

    def run(self) -> None:
        """Execute them, and say where everything is."""
        notebooks = run_notebooks(self.output_dir)
        print("\nThe executed notebooks:", *notebooks, sep="\n  ")
        print("The curves:", *sorted(self.output_dir.parent.glob("*/curves.png")), sep="\n  ")
        print("The models:\n  models/demo\n  models/demo-chat")


VERBS: dict[str, Any] = {
    "prepare": Prepare,
    "train": Train,
    "finetune": Finetune,
    "evaluate": Evaluate,
    "generate": Generate,
    "chat": Chat,
    "info": Info,
    "demo": Demo,
}


def _train(workspace: Workspace, stage: Stage, *, device: str) -> None:
    runtime = choose_runtime(workspace.config(stage).precision, device)
    bar = ProgressBar(description=stage)
    trainer = build_trainer(workspace, stage, runtime=runtime, observers=[bar])
    with contextlib.closing(bar):
        summary = trainer.fit()
    if summary.is_finished:
        save_trained(workspace, stage, trainer)
    print(Table.of(summary.rows(), title=str(workspace.model_dir(stage))))
    if not summary.is_finished:
        raise KeyboardInterrupt("run the same command again to go on")


def _move(bar: Any, done: int) -> None:
    bar.update(done - bar.n)


def _read_line() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _print_stream(*streams: Any) -> None:
    for stream in streams:
        for piece in stream:
            print(piece, end="", flush=True)
    print()
