"""Model folders of a preset, and the files of other systems."""

import hashlib
from pathlib import Path

import torch

from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.cards import curves_of, trained_card
from dimgpt.pipeline.imports import VOCABULARY_PATH, open_original
from dimgpt.runtime import Runtime
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.training.trainer import Trainer
from dimgpt.weights.originals import is_original
from dimgpt.weights.store import load_model, load_tokenizer, save_model
from dimgpt.workspace import Stage, Workspace, load_vocabulary


def open_model(
    path: Path,
    *,
    runtime: Runtime,
    tokenizer_path: Path | None = None,
    vocabulary_path: Path = VOCABULARY_PATH,
) -> tuple[Transformer, Tokenizer]:
    """Open a model folder, or weights of another system, with the tokenizer that belongs to them.

    Args:
        path: The folder, or what `load_original` takes.
        runtime: Where the model goes.
        tokenizer_path: A `tokenizer.json` or `vocab.txt`, for what has none of its own beside it.
        vocabulary_path: Where else the tokenizer of DimensionGPT may be.

    Raises:
        FileNotFoundError: The model or its tokenizer is missing.
        ValueError: One of them is damaged or foreign, or they do not belong together.
    """
    if is_original(path):
        model, tokenizer = open_original(
            path, tokenizer_path=tokenizer_path, vocabulary_path=vocabulary_path
        )
        return model.to(runtime.device), tokenizer
    model = load_model(path, device=runtime.device)
    if tokenizer_path is None:
        return model, load_tokenizer(path)
    tokenizer = Tokenizer.load(tokenizer_path)
    tokenizer.require_vocab_size(
        model.config.vocab_size, source=tokenizer_path, model=f"the model in {path}"
    )
    return model, tokenizer


def build_model(workspace: Workspace, stage: Stage) -> Transformer:
    """Return a new model, or the pretrained one that fine-tuning starts from.

    Raises:
        FileNotFoundError: There is no pretrained model.
        ValueError: It was trained with another vocabulary than the data's.
    """
    if stage == "finetuning":
        folder = workspace.model_dir("pretraining")
        require_vocabulary_of_data(workspace, folder)
        return load_model(folder)
    torch.manual_seed(workspace.preset.pretraining.seed)
    return Transformer(workspace.preset.model)


def require_vocabulary_of_data(workspace: Workspace, folder: Path) -> None:
    """Refuse a model folder whose ids are not those of the data.

    Raises:
        ValueError: It was trained with another vocabulary.
    """
    if load_tokenizer(folder).fingerprint != load_vocabulary(workspace).fingerprint:
        raise ValueError(
            f"{folder} was trained with another vocabulary than {workspace.vocabulary_path}: "
            "copy its vocab.txt there and prepare again, or train a new model"
        )


def fingerprint_weights(model: Transformer) -> str:
    """Return the SHA-256 of a model's weights on the CPU, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save_trained(workspace: Workspace, stage: Stage, trainer: Trainer) -> Path:
    """Write the model of a finished stage to its folder, with tokenizer and card."""
    folder = workspace.model_dir(stage)
    save_model(
        trainer.folder.whole_model(),
        folder,
        load_vocabulary(workspace),
        card=trained_card(workspace, stage, trainer),
        curves=curves_of(workspace, stage),
    )
    return folder
