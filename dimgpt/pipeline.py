"""The steps from a preset to a model, shared by the notebooks and the command line.

Each step finds what the ones before it left in `data/` and `models/`, and keeps what is already
made. Nothing is computed here: the rooms do the work, this file says what goes where.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from dimgpt.config import ConversationSourceConfig, DataConfig, SourceConfig, TrainingConfig
from dimgpt.data.corpus import ConversationCorpus, Corpus
from dimgpt.data.finetuning import FinetuningData
from dimgpt.data.preparation import Progress, prepare_conversations, prepare_source, sample_mixture
from dimgpt.data.pretraining import PretrainingData
from dimgpt.files import replace_file
from dimgpt.generation.generator import TextGenerator, require_matching
from dimgpt.model.transformer import Transformer
from dimgpt.presets import Preset
from dimgpt.runtime import Runtime
from dimgpt.settings import from_dict, override, to_dict
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.text.tokenizer_trainer import train_vocabulary
from dimgpt.training.trainer import Observer, Trainer, TrainingData
from dimgpt.weights.originals import load_dimensiongpt
from dimgpt.weights.store import load_model, load_tokenizer, save_model

Stage = Literal["pretraining", "finetuning"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Workspace:
    """Where the files of a preset are."""

    preset: Preset
    data_root: Path = Path("data")
    models_root: Path = Path("models")

    @property
    def vocabulary_path(self) -> Path:
        """The vocabulary."""
        return self.data_root / self.preset.name / "vocab.txt"

    @property
    def data_config_path(self) -> Path:
        """The `DataConfig` that the token files were made with."""
        return self.data_root / self.preset.name / "config.json"

    def data_dir(self, stage: Stage) -> Path:
        """Token files of a stage."""
        return self.data_root / self.preset.name / stage

    def model_dir(self, stage: Stage) -> Path:
        """Finished model of a stage; fine-tuning makes the chat model."""
        suffix = "-chat" if stage == "finetuning" else ""
        return self.models_root / f"{self.preset.name}{suffix}"

    def run_dir(self, stage: Stage) -> Path:
        """Checkpoints and history of a stage."""
        return self.models_root / f"{self.preset.name}-runs" / stage

    def config(self, stage: Stage) -> TrainingConfig:
        """Settings of a stage's run."""
        return self.preset.finetuning if stage == "finetuning" else self.preset.pretraining


def customise_data(
    preset: Preset,
    *,
    sources: Sequence[str] | None = None,
    conversations: Sequence[str] | None = None,
    **changes: Any,
) -> Preset:
    """Put a person's own files or folders in the place of a preset's, and change other settings.

    Args:
        preset: What is kept where nothing is given.
        sources: Texts; `None` or nothing keeps the preset's.
        conversations: Conversations; likewise.
        changes: Fields of `DataConfig`; `None` keeps the preset's.
    """
    own = tuple(SourceConfig(name=_stem(path), path=path) for path in sources or ())
    groups = tuple(
        ConversationSourceConfig(name=_stem(path), path=path) for path in conversations or ()
    )
    data = override(preset.data, sources=own or None, conversations=groups or None, **changes)
    return override(preset, data=data)


def customise_training(preset: Preset, stage: Stage, **changes: Any) -> Preset:
    """Change fields of a stage's `TrainingConfig`; `None` keeps the preset's.

    Raises:
        ValueError: The stage is unknown, or a value breaks its field's rule.
    """
    if stage not in get_args(Stage):
        raise ValueError(f"STAGE is {stage!r}: choose one of {', '.join(get_args(Stage))}")
    return override(preset, **{stage: override(getattr(preset, stage), **changes)})


def _stem(path: str) -> str:
    return Path(path).name.split(".")[0]


def prepare_vocabulary(
    workspace: Workspace, *, progress: Callable[[int], None] | None = None
) -> Tokenizer:
    """Load the vocabulary, or train it on a sample of the sources and keep it.

    Raises:
        ValueError: The vocabulary that is there has another size.
    """
    data, path = workspace.preset.data, workspace.vocabulary_path
    if path.exists():
        tokenizer = Tokenizer.load(path)
        if tokenizer.vocab_size != data.vocab_size:
            raise ValueError(
                f"{path} has {tokenizer.vocab_size:,} tokens: vocab_size is {data.vocab_size:,}; "
                "set vocab_size to its size, or move the file away to train another vocabulary"
            )
        return tokenizer
    documents = sample_mixture(
        data.sources, num_characters=data.vocabulary_characters, seed=data.seed
    )
    tokenizer = Tokenizer(train_vocabulary(documents, data.vocab_size, progress=progress))
    tokenizer.save(path)
    return tokenizer


def load_data_config(workspace: Workspace) -> DataConfig:
    """Load what `prepare_files` was asked for, so that nobody has to say it again.

    Raises:
        FileNotFoundError: The data have not been made.
    """
    path = workspace.data_config_path
    if not path.exists():
        raise FileNotFoundError(f"no data at {path.parent}: {_how_to_prepare(workspace)}")
    return from_dict(DataConfig, json.loads(path.read_bytes()))


def open_corpus(workspace: Workspace) -> Corpus:
    """Open the documents that `prepare_files` wrote."""
    sources = load_data_config(workspace).sources
    fingerprint = load_vocabulary(workspace).fingerprint
    return Corpus.open(workspace.data_dir("pretraining"), sources, fingerprint)


def open_conversations(workspace: Workspace) -> ConversationCorpus:
    """Open the conversations that `prepare_files` wrote."""
    groups = load_data_config(workspace).conversations
    fingerprint = load_vocabulary(workspace).fingerprint
    return ConversationCorpus.open(workspace.data_dir("finetuning"), groups, fingerprint)


def load_vocabulary(workspace: Workspace) -> Tokenizer:
    """Load the vocabulary.

    Raises:
        FileNotFoundError: It has not been made.
    """
    if not workspace.vocabulary_path.exists():
        raise FileNotFoundError(
            f"no vocabulary at {workspace.vocabulary_path}: {_how_to_prepare(workspace)}"
        )
    return Tokenizer.load(workspace.vocabulary_path)


def _how_to_prepare(workspace: Workspace) -> str:
    command = f"python -m dimgpt prepare --preset {workspace.preset.name}"
    return f"run create_data.ipynb, or {command}, first"


def match_vocabulary(workspace: Workspace) -> Workspace:
    """Give the model the vocabulary's size."""
    model = override(workspace.preset.model, vocab_size=load_vocabulary(workspace).vocab_size)
    return override(workspace, preset=override(workspace.preset, model=model))


def prepare_files(
    workspace: Workspace, tokenizer: Tokenizer, *, progress: Progress | None = None
) -> None:
    """Write the token files of every source and every group of conversations."""
    data = workspace.preset.data
    for source in data.sources:
        folder = workspace.data_dir("pretraining")
        prepare_source(source, tokenizer, folder, config=data, progress=progress)
    for group in data.conversations:
        folder = workspace.data_dir("finetuning")
        prepare_conversations(group, tokenizer, folder, config=data, progress=progress)
    replace_file(workspace.data_config_path, json.dumps(to_dict(data), indent=1).encode())


def open_data(workspace: Workspace, stage: Stage) -> TrainingData:
    """Return the batches of a stage."""
    preset, config = workspace.preset, workspace.config(stage)
    shape = {
        "context_length": preset.model.context_length,
        "batch_size": config.batch_size,
        "accumulation_steps": config.accumulation_steps,
        "seed": config.seed,
    }
    if stage == "pretraining":
        return PretrainingData(open_corpus(workspace), **shape)
    return FinetuningData(
        open_conversations(workspace),
        special_tokens=load_vocabulary(workspace).special_tokens,
        instruction_weight=load_data_config(workspace).instruction_weight,
        **shape,
    )


def open_model(
    path: Path, *, runtime: Runtime, vocabulary_path: Path = Path("data/vocab.txt")
) -> tuple[Transformer, Tokenizer]:
    """Open a model folder, or a DimensionGPT `.pt` with the `vocab.txt` that belongs to it."""
    if path.suffix == ".pt":
        model, tokenizer = load_dimensiongpt(path), Tokenizer.load(vocabulary_path)
        require_matching(model, tokenizer)
        return model.to(runtime.device), tokenizer
    return load_model(path, device=runtime.device), load_tokenizer(path)


def build_model(workspace: Workspace, stage: Stage) -> Transformer:
    """Return a new model, or the pretrained one that fine-tuning starts from.

    Raises:
        FileNotFoundError: There is no pretrained model.
    """
    if stage == "finetuning":
        return load_model(workspace.model_dir("pretraining"))
    torch.manual_seed(workspace.preset.pretraining.seed)
    return Transformer(workspace.preset.model)


def build_trainer(
    workspace: Workspace, stage: Stage, *, runtime: Runtime, observers: Sequence[Observer] = ()
) -> Trainer:
    """Put together what a stage needs; the trainer resumes by itself if the run has begun."""
    tokenizer, model = load_vocabulary(workspace), build_model(workspace, stage)
    require_matching(model, tokenizer)
    writer = TextGenerator(model, tokenizer)
    sampling = override(workspace.preset.sampling, max_new_tokens=40, seed=0)
    return Trainer(
        model,
        open_data(workspace, stage),
        workspace.config(stage),
        run_dir=workspace.run_dir(stage),
        runtime=runtime,
        vocabulary=tokenizer.fingerprint,
        byte_counts=tokenizer.byte_counts(),
        sample=lambda: writer.complete(workspace.preset.prompt, sampling),
        observers=observers,
    )


def save_trained(workspace: Workspace, stage: Stage, trainer: Trainer) -> Path:
    """Write the model of a finished stage to its folder, with tokenizer and card."""
    folder = workspace.model_dir(stage)
    facts: dict[str, Any] = {"preset": workspace.preset.name, "stage": stage}
    facts |= trainer.summary().rows()
    save_model(trainer.model, folder, load_vocabulary(workspace), card=facts)
    return folder
