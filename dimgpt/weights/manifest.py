"""Where the files of a model folder are, and whether they are the ones that were saved.

`config.json` names each file with its SHA-256. A complete save that has not come to its place yet,
`.saved/`, goes before what lies beside it. What the files say is `store.py`'s matter.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from dimgpt.config import ModelConfig
from dimgpt.files import sha256_of, sync_folder
from dimgpt.settings import from_dict, to_dict
from dimgpt.weights.found import describe

FORMAT_VERSION = 1
CONFIG_NAME = "config.json"
SAVING, SAVED = ".saving", ".saved"
HOW_TO_MAKE = "run training.ipynb or `python -m dimgpt train`, which make it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What config.json says."""

    config: ModelConfig
    hashes: dict[str, str]
    """File name -> SHA-256."""


def write_manifest(staging: Path, config: ModelConfig) -> None:
    """Write config.json, which names the files that are there."""
    content = {
        "format": "dimgpt",
        "format_version": FORMAT_VERSION,
        "model": to_dict(config),
        "sha256": {path.name: sha256_of(path) for path in sorted(staging.iterdir())},
    }
    text = json.dumps(content, indent=2) + "\n"
    (staging / CONFIG_NAME).write_text(text, encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read config.json.

    Raises:
        FileNotFoundError: It is missing, or the folder is.
        ValueError: It is damaged, or another program's.
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
        return Manifest(config=from_dict(ModelConfig, content["model"]), hashes=hashes)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(
            f"{path} is not the config of a model ({reason}): copy the folder again, or "
            f"{HOW_TO_MAKE}"
        ) from None


def verified_path(folder: Path, name: str, manifest: Manifest) -> Path:
    """Return the path of a file, after comparing its content with what config.json names.

    Raises:
        FileNotFoundError: It is missing.
        ValueError: config.json does not name it, or it is another.
    """
    if name not in manifest.hashes:
        raise ValueError(f"{folder} was saved without {name}: save the model again")
    path = _locate(folder, name)
    if sha256_of(path) != manifest.hashes[name]:
        raise ValueError(
            f"{path} is not the file that was saved (its SHA-256 differs from config.json): copy "
            f"the folder again, or {HOW_TO_MAKE}"
        )
    return path


def finish_save(folder: Path) -> None:
    """Move the files of a complete save to their places."""
    saved = folder / SAVED
    if not saved.is_dir() or saved.is_symlink():
        return
    for path in sorted(saved.iterdir()):
        path.replace(folder / path.name)
    saved.rmdir()
    sync_folder(folder)


def _locate(folder: Path, name: str) -> Path:
    """Return where a file of the newest complete save is; never one outside the folder."""
    candidates = [folder / SAVED / name, folder / name]
    path = next((path for path in candidates if path.exists() or path.is_symlink()), None)
    if path is None:
        raise FileNotFoundError(
            f"{folder / name} is missing; at {folder} lies {describe(folder)}: give a model "
            f"folder, or {HOW_TO_MAKE}"
        )
    if not path.is_file() or path.is_symlink() or (folder / SAVED).is_symlink():
        raise ValueError(
            f"{path} is a link or no file: it may lead out of the folder; put the file itself there"
        )
    return path
