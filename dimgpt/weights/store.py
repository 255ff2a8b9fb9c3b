"""A model folder: everything that belongs to a model, and no code.

    config.json         format version, model config, chat format, SHA-256 of the files below
    model.safetensors   weights, float32 by default; for adapters instead:
                        adapter_model.safetensors, adapter_config.json, see `adapter.py`
    vocab.txt           the tokenizer, if one was given; tokenizer.json if it is byte-level
    card.json           facts about the model, and its curves.png, if they were given
    README.md           the same for users; not read back

A save is complete or did not happen. The files are written into `.saving/`. Renaming that folder to
`.saved/` completes the save: its files are read instead of those beside it, until they have been
moved one by one. Other files in the folder are not changed. No optimizer state is kept here, and no
file is downloaded.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from dimgpt.config import DROPOUT_FIELDS, ModelConfig
from dimgpt.files import sha256_of, sync_folder
from dimgpt.model.transformer import Transformer
from dimgpt.settings import from_dict, override, to_dict
from dimgpt.text.tokenizer import TOKENIZER_FILES, Tokenizer
from dimgpt.weights.adapter import (
    ADAPTER_NAME,
    AdapterBase,
    apply_adapter,
    fingerprint_base,
    write_adapter,
)
from dimgpt.weights.card import CURVES_NAME, OWN_USAGE, USAGE_WITHOUT_TEXT, Card, card_text
from dimgpt.weights.foreign_files import describe, one_line, read_safetensors
from dimgpt.weights.layout import build_model, require_finite

FORMAT_VERSION = 1
CONFIG_NAME, WEIGHTS_NAME, CARD_NAME = "config.json", "model.safetensors", "card.json"
SAVING, SAVED = ".saving", ".saved"
_HOW_TO_MAKE = "make one with training.ipynb or `python -m dimgpt train`"


def save_model(
    model: Transformer,
    folder: Path,
    tokenizer: Tokenizer | None = None,
    *,
    card: Card | None = None,
    curves: bytes | None = None,
    dtype: torch.dtype = torch.float32,
    base: AdapterBase | None = None,
) -> None:
    """Write a model folder; an interruption at any point leaves the old model or the new one.

    Args:
        model: On any device, in any precision.
        folder: Created if it is missing; its other files stay.
        tokenizer: The model's own; `None` leaves the folder without one.
        card: Facts about the model, for its README.
        curves: The picture of its training, PNG.
        dtype: Precision in which the weights are stored.
        base: The base model of adapters; the folder then gets the adapters only.

    Raises:
        ValueError: A weight is not finite, or the tokenizer has another number of tokens.
    """
    if tokenizer is not None:
        tokenizer.require_vocab_size(model.config.vocab_size)
    weights = _weights_as(dtype, model)
    require_finite(weights, source=f"the model to save in {folder}")
    _finish_save(folder)  # of a run that was interrupted
    staging = folder / SAVING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        if base is None:
            save_file(weights, staging / WEIGHTS_NAME)
        else:
            write_adapter(model, staging)
        _describe(staging, model, tokenizer, card, curves, base)
        for path in [*sorted(staging.iterdir()), staging]:
            sync_folder(path)
        staging.rename(folder / SAVED)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    sync_folder(folder)
    _finish_save(folder)


def load_model(
    folder: Path, *, device: str | torch.device = "cpu", **changes: float | None
) -> Transformer:
    """Load a model folder, in evaluation mode, after comparing every file with its SHA-256.

    Adapters are merged into their base model, which must be the one that they were trained on.

    Args:
        folder: A folder of `save_model`.
        device: Device of the model.
        changes: Fields of its config that no weight depends on, such as `dropout`; `None` keeps the
            saved value.

    Raises:
        FileNotFoundError: The folder, or a file that config.json names, is missing.
        ValueError: A file is damaged, of another format, or does not fit the config.
    """
    config, hashes, _, base = _read_config(folder)
    config = override(config, **changes)
    if base is not None:
        return _load_merged(folder, config, hashes, base).to(device)
    path = _verified_path(folder, WEIGHTS_NAME, hashes)
    return build_model(config, read_safetensors(path), source=str(path)).to(device)


def require_intact(folder: Path) -> None:
    """Compare all files of a model folder with their SHA-256; raises as `load_model`."""
    hashes = _read_config(folder)[1]
    for name in hashes:
        _verified_path(folder, name, hashes)


def load_model_config(folder: Path) -> ModelConfig:
    """Load the settings of a model without its weights; raises as `load_model`."""
    return _read_config(folder)[0]


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of a model folder; raises as `load_model`, also if there is none."""
    _, hashes, chat_format, _ = _read_config(folder)
    for name in TOKENIZER_FILES.values():
        if name in hashes:
            tokenizer = Tokenizer.load(_verified_path(folder, name, hashes))
            if chat_format is not None:
                tokenizer.use_chat_format(chat_format)
            return tokenizer
    raise ValueError(
        f"{folder} was saved without a tokenizer: give one with --tokenizer, or import or save "
        "the model again with its own"
    )


def has_tokenizer(folder: Path) -> bool:
    """Return whether a model was saved with its tokenizer; raises as `load_model`."""
    return not _read_config(folder)[1].keys().isdisjoint(TOKENIZER_FILES.values())


def load_card(folder: Path) -> tuple[Card, bytes | None]:
    """Load the facts about a model, and its curves as PNG; raises as `load_model`."""
    hashes = _read_config(folder)[1]
    card, curves = Card(), None
    if CARD_NAME in hashes:
        card = Card.from_json(_verified_path(folder, CARD_NAME, hashes))
    if CURVES_NAME in hashes:
        curves = _verified_path(folder, CURVES_NAME, hashes).read_bytes()
    return card, curves


def _weights_as(dtype: torch.dtype, model: Transformer) -> dict[str, torch.Tensor]:
    weights = model.state_dict().items()
    return {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in weights}


def _load_merged(
    folder: Path, config: ModelConfig, hashes: dict[str, str], base: AdapterBase
) -> Transformer:
    """Load the base model beside a folder of adapters, and merge the adapters into it."""
    path = _verified_path(folder, ADAPTER_NAME, hashes)
    base_folder = folder.resolve().parent / base.name
    if not (base_folder / CONFIG_NAME).exists() and not (base_folder / SAVED).exists():
        raise FileNotFoundError(
            f"{folder} holds adapters of the model {base.name}, but at {base_folder} there is "
            f"{describe(base_folder)}: put that model there"
        )
    if _read_config(base_folder)[3] is not None:
        raise ValueError(
            f"{folder} names {base_folder} as its base model, but that folder holds adapters too: "
            "copy the folder and its base model again"
        )
    model = load_model(base_folder, **{name: getattr(config, name) for name in DROPOUT_FIELDS})
    if (found := fingerprint_base(model)) != base.sha256:
        raise ValueError(
            f"{folder} holds adapters for another model than {base_folder} (sha256 of its weights: "
            f"{base.sha256} -> {found}): put the first model back, or fine-tune again"
        )
    apply_adapter(model, read_safetensors(path), base.lora, source=str(path))
    return model


def _describe(
    staging: Path,
    model: Transformer,
    tokenizer: Tokenizer | None,
    card: Card | None,
    curves: bytes | None,
    base: AdapterBase | None,
) -> None:
    """Write the files beside the weights: tokenizer, card, hashes and README."""
    if tokenizer is not None:
        tokenizer.save(staging / tokenizer.file_name)
    if curves is not None:
        (staging / CURVES_NAME).write_bytes(curves)
    if card is not None:
        (staging / CARD_NAME).write_bytes(card.to_json())
    content = {
        "format": "dimgpt",
        "format_version": FORMAT_VERSION,
        "model": to_dict(model.config),
        **({} if base is None else {"base": to_dict(base)}),
        **({"chat_format": chat.name} if tokenizer and (chat := tokenizer.chat_format) else {}),
        "sha256": {path.name: sha256_of(path) for path in sorted(staging.iterdir())},
    }
    text = json.dumps(content, indent=2) + "\n"
    (staging / CONFIG_NAME).write_text(text, encoding="utf-8")
    # save_file makes the weights readable by their owner only.
    weights_name = WEIGHTS_NAME if base is None else ADAPTER_NAME
    shutil.copymode(staging / CONFIG_NAME, staging / weights_name)
    card = card or Card()
    card = replace(card, name=card.name or staging.absolute().parent.name)
    if base is not None:
        note = f"The files are adapters of the model {base.name}, which must be beside this folder."
        card = replace(card, notes=(*card.notes, note))
    usage = USAGE_WITHOUT_TEXT if tokenizer is None else OWN_USAGE
    text = card_text(card, model.config, usage=usage, has_curves=curves is not None)
    (staging / "README.md").write_text(text, encoding="utf-8")


def _finish_save(folder: Path) -> None:
    saved = folder / SAVED
    if not saved.is_dir() or saved.is_symlink():
        return
    for path in sorted(saved.iterdir()):
        path.replace(folder / path.name)
    saved.rmdir()
    sync_folder(folder)


def _read_config(
    folder: Path,
) -> tuple[ModelConfig, dict[str, str], str | None, AdapterBase | None]:
    """Return model config, file name -> SHA-256, chat format and base model of a config.json.

    Older folders have no chat format; the tokenizer then recognises it by its special tokens.
    """
    path = _locate(folder, CONFIG_NAME)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != "dimgpt" or content["format_version"] != FORMAT_VERSION:
            raise ValueError(
                f"format {content['format']} {content['format_version']}, this program reads "
                f"dimgpt {FORMAT_VERSION}"
            )
        hashes = {str(name): str(value) for name, value in content["sha256"].items()}
        chat_format = content.get("chat_format")
        if not isinstance(chat_format, str | None):
            raise ValueError(f"chat_format is {chat_format!r} instead of a name")
        base = from_dict(AdapterBase, content["base"]) if "base" in content else None
        return from_dict(ModelConfig, content["model"]), hashes, chat_format, base
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{path} is not the config of a model ({one_line(error)}): copy the folder again, or "
            f"{_HOW_TO_MAKE}"
        ) from None


def _verified_path(folder: Path, name: str, hashes: dict[str, str]) -> Path:
    """Return the path of a file, after comparing its content with the hash in config.json."""
    path = _locate(folder, name)
    if sha256_of(path) != hashes.get(name):
        raise ValueError(
            f"{path} is not the file that was saved (its SHA-256 differs from config.json): copy "
            f"the folder again, or {_HOW_TO_MAKE}"
        )
    return path


def _locate(folder: Path, name: str) -> Path:
    """Return the path of a file of the newest complete save, never one outside the folder."""
    candidates = [folder / SAVED / name, folder / name]
    path = next((path for path in candidates if path.exists() or path.is_symlink()), None)
    if path is None:
        raise FileNotFoundError(
            f"{folder / name} is missing: there is {describe(folder)} at {folder}; give a model "
            f"folder, or {_HOW_TO_MAKE}"
        )
    if not path.is_file() or path.is_symlink() or (folder / SAVED).is_symlink():
        raise ValueError(
            f"{path} is a link or a folder, and a link may lead out of the model folder: put the "
            "file itself there"
        )
    return path
