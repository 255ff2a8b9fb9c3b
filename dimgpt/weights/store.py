"""A model folder: everything that a model is, and nothing that could run.

    config.json         format version, model config, SHA-256 of the files below
    model.safetensors   weights, float32 unless another precision was asked for
    vocab.txt           the tokenizer, where one was given; tokenizer.json if it is byte-level
    card.json           what is known about the model, and its curves.png, where they were given
    README.md           the same for people; not read back

A save is complete or did not happen. The files are written into `.saving/`; renaming that folder to
`.saved/` is the moment from which they count; then they move to their places one by one, and until
they have, `.saved/` goes before what lies beside it. Other files in the folder stay untouched. No
optimizer state is kept here, and no file is downloaded.
"""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dimgpt.config import ModelConfig
from dimgpt.files import sync_folder
from dimgpt.model.transformer import Transformer
from dimgpt.text.tokenizer import TOKENIZER_FILES, Tokenizer
from dimgpt.weights.card import CURVES_NAME, OWN_USAGE, USAGE_WITHOUT_TEXT, Card, card_text
from dimgpt.weights.manifest import (
    CONFIG_NAME,
    HOW_TO_MAKE,
    SAVED,
    SAVING,
    Manifest,
    finish_save,
    read_manifest,
    verified_path,
    write_manifest,
)

WEIGHTS_NAME, CARD_NAME = "model.safetensors", "card.json"


def save_model(
    model: Transformer,
    folder: Path,
    tokenizer: Tokenizer | None = None,
    *,
    card: Card | None = None,
    curves: bytes | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a model folder; an interruption at any point leaves the old model or the new one.

    Args:
        model: On any device, in any precision.
        folder: Made if it is missing; what else it holds stays.
        tokenizer: The model's own; `None` leaves the folder without one.
        card: What is known about the model, for its README.
        curves: The picture of its training, PNG.
        dtype: Precision in which the weights are stored.

    Raises:
        ValueError: A weight is no finite number, or the tokenizer has another number of tokens.
    """
    if tokenizer is not None:
        tokenizer.require_vocab_size(model.config.vocab_size)
    tensors = _weights_of(model, dtype)
    _require_finite(tensors, source=f"the model to save in {folder}")
    finish_save(folder)  # of a run that was interrupted
    staging = folder / SAVING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        save_file(tensors, staging / WEIGHTS_NAME)
        _describe(staging, model, tokenizer, card, curves, name=folder.absolute().name)
        for path in [*sorted(staging.iterdir()), staging]:
            sync_folder(path)
        staging.rename(folder / SAVED)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    sync_folder(folder)
    finish_save(folder)


def load_model(folder: Path, *, device: str | torch.device = "cpu") -> Transformer:
    """Load a model folder, in evaluation mode, after comparing every file with its SHA-256.

    Raises:
        FileNotFoundError: The folder, or a file that config.json names, is missing.
        ValueError: A file is damaged, of another format, or does not fit the config.
    """
    manifest = read_manifest(folder)
    path = verified_path(folder, WEIGHTS_NAME, manifest)
    try:
        tensors = load_file(path)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"{path} is no safetensors file ({_one_line(error)}): copy the folder again, or "
            f"{HOW_TO_MAKE}"
        ) from None
    return build_model(manifest.config, tensors, source=str(path)).to(device)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of a model folder, after comparing it with its SHA-256.

    Raises:
        FileNotFoundError: The folder, or its vocabulary, is missing.
        ValueError: The vocabulary is damaged, or was never saved with the model.
    """
    manifest = read_manifest(folder)
    name = _tokenizer_name(manifest)
    if name is None:
        raise ValueError(
            f"{folder} was saved without a tokenizer: give one with --tokenizer, or import or save "
            "the model again with its own"
        )
    return Tokenizer.load(verified_path(folder, name, manifest))


def has_tokenizer(folder: Path) -> bool:
    """Say whether a model was saved with its tokenizer.

    Raises:
        FileNotFoundError: The folder is missing.
        ValueError: Its config.json is damaged.
    """
    return _tokenizer_name(read_manifest(folder)) is not None


def _tokenizer_name(manifest: Manifest) -> str | None:
    return next((name for name in TOKENIZER_FILES.values() if name in manifest.hashes), None)


def load_card(folder: Path) -> tuple[Card, bytes | None]:
    """Load what is known about the model of a folder, and the picture of its training.

    Raises:
        FileNotFoundError: The folder, or a file that config.json names, is missing.
        ValueError: A file is damaged.
    """
    manifest, card, curves = read_manifest(folder), Card(), None
    if CARD_NAME in manifest.hashes:
        card = Card.from_json(verified_path(folder, CARD_NAME, manifest))
    if CURVES_NAME in manifest.hashes:
        curves = verified_path(folder, CURVES_NAME, manifest).read_bytes()
    return card, curves


def build_model(config: ModelConfig, tensors: Mapping[str, Tensor], *, source: str) -> Transformer:
    """Make a model, in evaluation mode, of tensors that fit it by name and shape.

    The tensors are copied as float32; a file that they are mapped from may go.

    Raises:
        ValueError: Tensors are missing, unexpected, of another shape, or not finite numbers.
    """
    if config.num_layers > len(tensors):  # before a damaged config builds a million blocks
        raise ValueError(
            f"{source} has {len(tensors)} tensors, too few for num_layers {config.num_layers}: "
            "take the config that belongs to these weights"
        )
    try:
        with torch.device("meta"):
            model = Transformer(config)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"the config of {source} describes no model ({_one_line(error)}): correct it"
        ) from None
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    _require_shapes(tensors, expected, source=source)
    _require_finite(tensors, source=source)
    weights = {name: tensor.to(torch.float32, copy=True) for name, tensor in tensors.items()}
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _weights_of(model: Transformer, dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in model.state_dict().items()
    }


def _require_shapes(
    tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], *, source: str
) -> None:
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    problems += [f"{name} is unexpected" for name in tensors if name not in expected]
    problems += [
        f"{name} is {tuple(tensors[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ValueError(
            f"{source} does not fit its config: {', '.join(problems[:4])}{more}; take the config "
            "and the weights of one model"
        )


def _require_finite(tensors: Mapping[str, Tensor], *, source: str) -> None:
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() and bool(tensor.isfinite().all())):
            raise ValueError(
                f"{source}: {name} holds NaN, infinity or no floating-point numbers; take an "
                "earlier checkpoint or another copy"
            )


def _describe(
    staging: Path,
    model: Transformer,
    tokenizer: Tokenizer | None,
    card: Card | None,
    curves: bytes | None,
    *,
    name: str,
) -> None:
    """Write what belongs to the weights: tokenizer, card, hashes, and the page for people."""
    if tokenizer is not None:
        tokenizer.save(staging / tokenizer.file_name)
    if curves is not None:
        (staging / CURVES_NAME).write_bytes(curves)
    if card is not None:
        (staging / CARD_NAME).write_bytes(card.to_json())
    write_manifest(staging, model.config)
    # The library leaves the weights to their owner alone.
    shutil.copymode(staging / CONFIG_NAME, staging / WEIGHTS_NAME)
    card = card or Card()
    text = card_text(
        replace(card, name=card.name or name),
        model.config,
        num_parameters=model.num_parameters,
        usage=USAGE_WITHOUT_TEXT if tokenizer is None else OWN_USAGE,
        has_curves=curves is not None,
    )
    (staging / "README.md").write_text(text, encoding="utf-8")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
