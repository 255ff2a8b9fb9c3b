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

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from dimgpt.config import ModelConfig
from dimgpt.files import sha256_of, sync_folder
from dimgpt.model.transformer import Transformer
from dimgpt.settings import from_dict, to_dict
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.text.tokenizer_file import TOKENIZER_FILES, load_tokenizer_file
from dimgpt.weights.card import CURVES_NAME, Card, card_text

FORMAT_VERSION = 1
CONFIG_NAME, WEIGHTS_NAME, CARD_NAME = "config.json", "model.safetensors", "card.json"
_SAVING, _SAVED = ".saving", ".saved"
_HOW_TO_MAKE = "run training.ipynb or `python -m dimgpt train`, which make it"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Manifest:
    """What config.json says."""

    config: ModelConfig
    hashes: dict[str, str]
    """File name -> SHA-256."""


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
    _require_matching(model, tokenizer)
    tensors = _weights_of(model, dtype)
    _require_finite(tensors, source=f"the model to save in {folder}")
    _finish_save(folder)  # of a run that was interrupted
    staging = folder / _SAVING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        save_file(tensors, staging / WEIGHTS_NAME)
        if tokenizer is not None:
            tokenizer.save(staging / tokenizer.file_name)
        if curves is not None:
            (staging / CURVES_NAME).write_bytes(curves)
        _describe(staging, model, card, name=folder.absolute().name)
        for path in [*sorted(staging.iterdir()), staging]:
            sync_folder(path)
        staging.rename(folder / _SAVED)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    sync_folder(folder)
    _finish_save(folder)


def load_model(folder: Path, *, device: str | torch.device = "cpu") -> Transformer:
    """Load a model folder, in evaluation mode, after comparing every file with its SHA-256.

    Raises:
        FileNotFoundError: The folder, or a file that config.json names, is missing.
        ValueError: A file is damaged, of another format, or does not fit the config.
    """
    manifest = _read_manifest(folder)
    path = _verified(folder, WEIGHTS_NAME, manifest)
    try:
        tensors = load_file(path)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"{path} is no safetensors file ({_one_line(error)}): copy the folder again, or "
            f"{_HOW_TO_MAKE}"
        ) from None
    return build_model(manifest.config, tensors, source=str(path)).to(device)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of a model folder, after comparing it with its SHA-256.

    Raises:
        FileNotFoundError: The folder, or its vocabulary, is missing.
        ValueError: The vocabulary is damaged, or was never saved with the model.
    """
    manifest = _read_manifest(folder)
    names = [name for name in TOKENIZER_FILES.values() if name in manifest.hashes]
    return load_tokenizer_file(_verified(folder, [*names, "vocab.txt"][0], manifest))


def load_card(folder: Path) -> tuple[Card, bytes | None]:
    """Load what is known about the model of a folder, and the picture of its training.

    Raises:
        FileNotFoundError: The folder, or a file that config.json names, is missing.
        ValueError: A file is damaged.
    """
    manifest, card, curves = _read_manifest(folder), Card(), None
    if CARD_NAME in manifest.hashes:
        card = Card.from_json(_verified(folder, CARD_NAME, manifest))
    if CURVES_NAME in manifest.hashes:
        curves = _verified(folder, CURVES_NAME, manifest).read_bytes()
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


def _require_matching(model: Transformer, tokenizer: Tokenizer | None) -> None:
    if tokenizer is not None and tokenizer.vocab_size != model.config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}:"
            " they must agree; save the tokenizer that the model was trained with"
        )


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


def _finish_save(folder: Path) -> None:
    """Move the files of a complete save to their places."""
    saved = folder / _SAVED
    if not saved.is_dir() or saved.is_symlink():
        return
    for path in sorted(saved.iterdir()):
        path.replace(folder / path.name)
    saved.rmdir()
    sync_folder(folder)


def _write_manifest(staging: Path, config: ModelConfig) -> None:
    content = {
        "format": "dimgpt",
        "format_version": FORMAT_VERSION,
        "model": to_dict(config),
        "sha256": {path.name: sha256_of(path) for path in sorted(staging.iterdir())},
    }
    text = json.dumps(content, indent=2) + "\n"
    (staging / CONFIG_NAME).write_text(text, encoding="utf-8")


def _describe(staging: Path, model: Transformer, card: Card | None, *, name: str) -> None:
    """Write what is said about the files: the card, their hashes, and the page for people."""
    if card is not None:
        (staging / CARD_NAME).write_bytes(card.to_json())
    _write_manifest(staging, model.config)
    card = card or Card()
    text = card_text(
        replace(card, name=card.name or name),
        model.config,
        num_parameters=model.num_parameters,
        has_curves=(staging / CURVES_NAME).exists(),
    )
    (staging / "README.md").write_text(text, encoding="utf-8")


def _read_manifest(folder: Path) -> _Manifest:
    path = _locate(folder, CONFIG_NAME)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != "dimgpt" or content["format_version"] != FORMAT_VERSION:
            raise ValueError(
                f"format {content['format']} {content['format_version']}, this program reads "
                f"dimgpt {FORMAT_VERSION}"
            )
        hashes = {str(name): str(value) for name, value in content["sha256"].items()}
        return _Manifest(config=from_dict(ModelConfig, content["model"]), hashes=hashes)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not the config of a model ({_one_line(error)}): copy the folder again, or "
            f"{_HOW_TO_MAKE}"
        ) from None


def _verified(folder: Path, name: str, manifest: _Manifest) -> Path:
    """Return the path of a file whose content is the one that config.json names."""
    if name not in manifest.hashes:
        raise ValueError(
            f"{folder} was saved without {name}: save it again, with "
            "save_model(model, folder, tokenizer)"
        )
    path = _locate(folder, name)
    if sha256_of(path) != manifest.hashes[name]:
        raise ValueError(
            f"{path} is not the file that was saved (its SHA-256 differs from config.json): copy "
            f"the folder again, or {_HOW_TO_MAKE}"
        )
    return path


def _locate(folder: Path, name: str) -> Path:
    """Return where a file of the newest complete save is; never one outside the folder."""
    candidates = [folder / _SAVED / name, folder / name]
    path = next((path for path in candidates if path.exists() or path.is_symlink()), None)
    if path is None:
        raise FileNotFoundError(f"{folder / name} is missing: {_HOW_TO_MAKE}")
    if not path.is_file() or path.is_symlink() or (folder / _SAVED).is_symlink():
        raise ValueError(
            f"{path} is a link or no file: it may lead out of the folder; put the file itself there"
        )
    return path


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
