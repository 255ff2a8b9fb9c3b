"""Where the files of a preset are, and what is found there.

Opens what is small: the vocabulary and the settings of the data. Makes nothing.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dimgpt.config import DataConfig, TrainingConfig
from dimgpt.config.rules import is_file_name
from dimgpt.presets import PRESETS, Preset
from dimgpt.settings import from_dict
from dimgpt.text.tokenizer import TOKENIZER_FILES, Tokenizer

Stage = Literal["pretraining", "finetuning"]

# What the names of other folders in models/ end in.
_CHAT, _RUNS = "-chat", "-runs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Workspace:
    """Where the files of a preset are.

    Raises:
        ValueError: The preset's name is no folder name, or would be taken for another's folder.
    """

    preset: Preset
    data_root: Path = Path("data")
    models_root: Path = Path("models")
    data_name: str | None = None
    """Name of the folder in `data_root`; the preset's if not given."""

    def __post_init__(self) -> None:
        for name in (self.data_name or self.preset.name, self.preset.name):
            if not is_file_name(name):
                raise ValueError(
                    f"name is {name!r}: it names folders; use letters, digits, - and _"
                )
        if name.endswith((_CHAT, _RUNS)):
            raise ValueError(
                f"name is {name!r}: names that end in {_CHAT} or {_RUNS} are those of chat models "
                "and runs; choose another"
            )

    @property
    def _data_folder(self) -> Path:
        return self.data_root / (self.data_name or self.preset.name)

    @property
    def vocabulary_path(self) -> Path:
        """The vocabulary: the one that is there, else where one of the preset's kind will be."""
        folder = self._data_folder
        wanted = TOKENIZER_FILES[self.preset.data.tokenizer.kind]
        found = [name for name in TOKENIZER_FILES.values() if (folder / name).exists()]
        return folder / (wanted if wanted in found else [*found, wanted][0])

    @property
    def data_config_path(self) -> Path:
        """The `DataConfig` that the token files were made with."""
        return self._data_folder / "config.json"

    def data_dir(self, stage: Stage) -> Path:
        """Token files of a stage."""
        return self._data_folder / stage

    def model_dir(self, stage: Stage) -> Path:
        """Finished model of a stage; fine-tuning makes the chat model."""
        suffix = _CHAT if stage == "finetuning" else ""
        return self.models_root / f"{self.preset.name}{suffix}"

    def run_dir(self, stage: Stage) -> Path:
        """Checkpoints and history of a stage."""
        return self.models_root / f"{self.preset.name}{_RUNS}" / stage

    def config(self, stage: Stage) -> TrainingConfig:
        """Settings of a stage's run."""
        return self.preset.finetuning if stage == "finetuning" else self.preset.pretraining


def load_data_config(workspace: Workspace) -> DataConfig:
    """Load what `prepare_files` was asked for, so that nobody has to say it again.

    Raises:
        FileNotFoundError: The data have not been made.
        ValueError: The file is damaged.
    """
    path = workspace.data_config_path
    if not path.exists():
        raise FileNotFoundError(f"no data at {path.parent}: {_how_to_prepare(workspace)}")
    try:
        return from_dict(DataConfig, json.loads(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {_how_to_prepare(workspace)}") from error


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
    name = workspace.data_name or workspace.preset.name
    flag = "--preset" if name in PRESETS else "--name"
    return f"run create_data.ipynb, or `python -m dimgpt prepare {flag} {name}`, first"
