"""The steps from a preset to a model, shared by the notebooks and the command line.

Each step finds what the ones before it left in `data/` and `models/`, and keeps what is already
made. Nothing is computed here: the rooms do the work, this file says what goes where.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from dimgpt.config import TrainingConfig
from dimgpt.data.corpus import ConversationCorpus, Corpus
from dimgpt.data.finetuning import FinetuningData
from dimgpt.data.preparation import Progress, prepare_conversations, prepare_source, sample_mixture
from dimgpt.data.pretraining import PretrainingData
from dimgpt.generation.generator import TextGenerator
from dimgpt.model.transformer import Transformer
from dimgpt.presets import Preset
from dimgpt.runtime import Runtime
from dimgpt.settings import override
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.text.tokenizer_trainer import train_vocabulary
from dimgpt.training.trainer import Observer, Trainer, TrainingData
from dimgpt.weights.store import load_model, save_model

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


def open_corpus(workspace: Workspace) -> Corpus:
    """Open the documents that `prepare_documents` wrote."""
    tokenizer = load_vocabulary(workspace)
    folder = workspace.data_dir("pretraining")
    return Corpus.open(folder, workspace.preset.data.sources, tokenizer.fingerprint)


def open_conversations(workspace: Workspace) -> ConversationCorpus:
    """Open the conversations that `prepare_conversation_files` wrote."""
    tokenizer = load_vocabulary(workspace)
    folder = workspace.data_dir("finetuning")
    return ConversationCorpus.open(
        folder, workspace.preset.data.conversations, tokenizer.fingerprint
    )


def load_vocabulary(workspace: Workspace) -> Tokenizer:
    """Load the vocabulary.

    Raises:
        FileNotFoundError: It has not been made.
    """
    if not workspace.vocabulary_path.exists():
        raise FileNotFoundError(
            f"no vocabulary at {workspace.vocabulary_path}: run create_data.ipynb, or "
            f"python -m dimgpt prepare --preset {workspace.preset.name}"
        )
    return Tokenizer.load(workspace.vocabulary_path)


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
        instruction_weight=preset.data.instruction_weight,
        **shape,
    )


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
