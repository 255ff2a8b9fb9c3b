"""A preset with a user's own texts and settings, and the places of its files.

Opens small files only, the vocabulary and the settings of the data, and writes none. `None` keeps
the preset's value, so that a notebook can list all settings and change one.
"""

import dataclasses
import json
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from dimgpt.config import (
    ConversationSourceConfig,
    DataConfig,
    Packing,
    PreferenceSourceConfig,
    QualityConfig,
    SourceConfig,
    TrainingConfig,
)
from dimgpt.config.rules import is_file_name
from dimgpt.data.dataset_list import ListedText, read_dataset_list
from dimgpt.presets import PRESETS, Preset
from dimgpt.settings import from_dict, override
from dimgpt.text.tokenizer import TOKENIZER_FILES, Tokenizer

Stage = Literal["pretraining", "finetuning", "preferences"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In their order. Each stage after the first begins with the previous model, see `base_path`."""

# Endings of folder names in models/: of the stages' models, and of runs.
_MODELS: dict[Stage, str] = {"pretraining": "", "finetuning": "-chat", "preferences": "-preferred"}
_RUNS = "-runs"


@dataclass(frozen=True, kw_only=True, slots=True)
class Workspace:
    """The places of a preset's files.

    Raises:
        ValueError: The preset's name cannot name a folder, or ends like that of a chat model or a
            run.
    """

    preset: Preset
    data_root: Path = Path("data")
    models_root: Path = Path("models")
    data_name: str | None = None
    """Name of the folder in `data_root`; the preset's if not given."""
    finetune_from: Path | None = None
    """The model that fine-tuning begins with: a model folder, or weights of another system. By
    default the pretrained model of this name."""
    packing: Packing | None = None
    """Rows for fine-tuning, see `DataConfig`; by default those in the data's settings."""

    def __post_init__(self) -> None:
        require_folder_name(self.data_name or self.preset.name)
        require_folder_name(self.preset.name, reserved=(*filter(None, _MODELS.values()), _RUNS))

    @property
    def data_folder(self) -> Path:
        """The folder of vocabulary, settings and token files."""
        return self.data_root / (self.data_name or self.preset.name)

    @property
    def vocabulary_path(self) -> Path:
        """The existing vocabulary, else the path where one of the preset's kind will be written."""
        wanted = self.data_folder / TOKENIZER_FILES[self.preset.data.tokenizer.kind]
        places = [wanted, *(self.data_folder / name for name in TOKENIZER_FILES.values())]
        return next((path for path in places if path.exists()), wanted)

    @property
    def data_config_path(self) -> Path:
        """The file of the `DataConfig` with which the token files were made."""
        return self.data_folder / "config.json"

    def data_dir(self, stage: Stage) -> Path:
        """Return the folder of a stage's token files."""
        return self.data_folder / stage

    def model_dir(self, stage: Stage) -> Path:
        """Return the folder of a stage's finished model; fine-tuning makes the chat model."""
        return self.models_root / f"{self.preset.name}{_MODELS[stage]}"

    def base_path(self, stage: Stage) -> Path | None:
        """Return the model that a stage begins with; `None` for pretraining."""
        if stage == "finetuning" and self.finetune_from is not None:
            return self.finetune_from
        number = STAGES.index(stage)
        return self.model_dir(STAGES[number - 1]) if number else None

    def run_dir(self, stage: Stage) -> Path:
        """Return the folder of a stage's checkpoints and history."""
        return self.models_root / f"{self.preset.name}{_RUNS}" / stage

    def config(self, stage: Stage) -> TrainingConfig:
        """Return the settings of a stage's run."""
        config: TrainingConfig = getattr(self.preset, stage)
        return config

    @property
    def prepare_command(self) -> str:
        """The command that prepares its data."""
        root = self.data_root
        folder = "" if root == Path("data") else f" --data-root {shlex.quote(str(root))}"
        return f"python -m dimgpt prepare {name_flag(self.data_folder.name)}{folder}"


def name_of_data(model_name: str) -> str:
    """Return the name of a model's data: the model's name without the ending of its stage."""
    for ending in filter(None, _MODELS.values()):
        model_name = model_name.removesuffix(ending)
    return model_name


def name_flag(name: str) -> str:
    """Return the flag with which a command finds a name."""
    return f"--preset {name}" if name in PRESETS else f"--name {shlex.quote(name)}"


def customise_data(
    preset: Preset,
    *,
    sources: Sequence[str] | None = None,
    conversations: Sequence[str] | None = None,
    preferences: Sequence[str] | None = None,
    text_column: str | None = None,
    languages: Sequence[str] | None = None,
    **changes: Any,
) -> Preset:
    """Replace a preset's texts by a user's own files or folders, and change other settings.

    Args:
        preset: Gives everything that is not given here.
        sources: Own texts, or a `datasets.json` of toyGPT. They also replace the preset's
            conversations and preferences, so that none of its texts gets into the vocabulary.
        conversations: Own conversations.
        preferences: Own pairs of answers.
        text_column: Column of `sources` that contains the text.
        languages: ISO 639 codes of the languages to keep.
        changes: Fields of `DataConfig` and `QualityConfig`; `None` keeps the preset's.

    Raises:
        ValueError: A text column is given without sources, a list of data sets has a wrong entry,
            or a value breaks its field's rule.
    """
    if text_column is not None and not sources:
        raise ValueError(f"text_column is {text_column!r}: it needs sources of your own; name them")
    data, texts = preset.data, dict[str, Any]()
    if sources:
        texts["sources"] = _own_sources(sources, text_column, preset)
    for field, kind, paths in (
        ("conversations", ConversationSourceConfig, conversations),
        ("preferences", PreferenceSourceConfig, preferences),
    ):
        if sources or paths:
            texts[field] = tuple(kind(name=name, path=path) for name, path in _named(paths or ()))
    names = {field.name for field in dataclasses.fields(QualityConfig)} & changes.keys()
    switches = {name: changes.pop(name) for name in names}
    switches["languages"] = None if languages is None else tuple(languages)
    quality = override(data.quality, **switches)
    return override(preset, data=override(data, **texts, quality=quality, **changes))


def customise_training(preset: Preset, stage: Stage, **changes: Any) -> Preset:
    """Change fields of a stage's `TrainingConfig`; `None` keeps the preset's.

    Raises:
        ValueError: The stage is unknown, or a value breaks its field's rule.
    """
    if stage not in STAGES:
        raise ValueError(f"STAGE is {stage!r}: choose one of {', '.join(STAGES)}")
    return override(preset, **{stage: override(getattr(preset, stage), **changes)})


def require_folder_name(name: str, *, reserved: tuple[str, ...] = ()) -> None:
    """Refuse a name that cannot name a folder, or that has a reserved ending.

    Raises:
        ValueError: The name is refused.
    """
    if not (is_file_name(name) and name.isprintable()):
        raise ValueError(f"name is {name!r}: it names folders; use letters, digits, - and _")
    if name.endswith(reserved):
        raise ValueError(
            f"name is {name!r}: the endings {', '.join(reserved)} are reserved for chat models "
            "and runs; choose another name"
        )


def load_data_config(workspace: Workspace) -> DataConfig:
    """Load the settings with which the token files were prepared.

    Raises:
        FileNotFoundError: The data are not prepared.
        ValueError: The file is damaged.
    """
    path = workspace.data_config_path
    if not path.exists():
        raise FileNotFoundError(f"no data at {workspace.data_folder}: {_how_to_prepare(workspace)}")
    try:
        return from_dict(DataConfig, json.loads(path.read_bytes()))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): delete it and {_how_to_prepare(workspace)}"
        ) from error


def load_vocabulary(workspace: Workspace) -> Tokenizer:
    """Load the vocabulary.

    Raises:
        FileNotFoundError: It does not exist.
    """
    path = workspace.vocabulary_path
    if not path.exists():
        raise FileNotFoundError(f"no vocabulary at {path}: {_how_to_prepare(workspace)}")
    return Tokenizer.load(path)


def _how_to_prepare(workspace: Workspace) -> str:
    how = f"run create_data.ipynb, or `{workspace.prepare_command}`, first"
    is_there = workspace.data_root.is_dir()
    return how if is_there else f"{how}; or name the folder of your data with --data-root"


def _own_sources(
    paths: Sequence[str], text_column: str | None, preset: Preset
) -> tuple[SourceConfig, ...]:
    """Return a source for each path, and for each subset in a list of data sets.

    A listed data set that the preset also has gets the preset's revision and licence.
    """
    column = "text" if text_column is None else text_column
    known = {(source.path, source.hub_config): source for source in preset.data.sources}
    wanted = []
    for path in paths:
        listed = read_dataset_list(Path(path), text_column=column)
        if listed is not None and text_column is not None:
            raise ValueError(
                f"text_column is {text_column!r}: {path} names the columns of its data sets; leave "
                "one of them out"
            )
        wanted += [ListedText(path, None, column)] if listed is None else listed
    sources = []
    for (name, _), text in zip(_named([text.path for text in wanted]), wanted, strict=True):
        source = SourceConfig(name=name, **text._asdict())
        if text.path not in paths and (old := known.get((text.path, text.hub_config))):
            source = override(source, revision=old.revision, licence=old.licence)
        sources.append(source)
    return tuple(sources)


def _named(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield a folder name for each path, and the path; equal names get a number."""
    seen: Counter[str] = Counter()
    for path in paths:
        *_, parent, last = ("", *path.rstrip("/").split("/"))
        if "://" not in path:
            last = Path(path).resolve().name.lstrip(".").split(".")[0]
        # In demo://stories/20000, the last part is a number of texts, not a name.
        name = parent if path.startswith("demo://") else last
        seen[name] += 1
        yield (name if seen[name] == 1 else f"{name}-{seen[name]}"), path
