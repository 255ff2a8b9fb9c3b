"""A preset with a person's own data and numbers in it.

`None` always keeps what the preset says, so that a notebook can show every constant and change one.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from dimgpt.config import ConversationSourceConfig, QualityConfig, SourceConfig
from dimgpt.presets import Preset
from dimgpt.settings import override
from dimgpt.workspace import Stage


def customise_data(
    preset: Preset,
    *,
    sources: Sequence[str] | None = None,
    conversations: Sequence[str] | None = None,
    languages: Sequence[str] | None = None,
    **changes: Any,
) -> Preset:
    """Put a person's own files or folders in the place of a preset's, and change other settings.

    Args:
        preset: What is kept where nothing is given.
        sources: Texts; `None` or nothing keeps the preset's.
        conversations: Conversations; likewise.
        languages: ISO 639 codes of the languages to keep.
        changes: Fields of `DataConfig` and `QualityConfig`; `None` keeps the preset's.
    """
    own = tuple(SourceConfig(name=name, path=path) for name, path in _named(sources or ()))
    groups = tuple(
        ConversationSourceConfig(name=name, path=path) for name, path in _named(conversations or ())
    )
    names = {field.name for field in dataclasses.fields(QualityConfig)} & changes.keys()
    switches = {name: changes.pop(name) for name in names}
    if languages is not None:
        switches["languages"] = tuple(languages)
    quality = override(preset.data.quality, **switches)
    own_data = {"sources": own or None, "conversations": groups or None, "quality": quality}
    return override(preset, data=override(preset.data, **own_data, **changes))


def customise_training(preset: Preset, stage: Stage, **changes: Any) -> Preset:
    """Change fields of a stage's `TrainingConfig`; `None` keeps the preset's.

    Raises:
        ValueError: The stage is unknown, or a value breaks its field's rule.
    """
    if stage not in get_args(Stage):
        raise ValueError(f"STAGE is {stage!r}: choose one of {', '.join(get_args(Stage))}")
    return override(preset, **{stage: override(getattr(preset, stage), **changes)})


def _named(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield a folder name for each path, and the path; equal names get a number."""
    seen: Counter[str] = Counter()
    for path in paths:
        *_, parent, last = ("", *path.rstrip("/").split("/"))
        if "://" not in path:
            last = Path(path).resolve().name.lstrip(".").split(".")[0]
        # Of demo://stories/20000, the number says how many.
        name = parent if path.startswith("demo://") else last
        seen[name] += 1
        yield (name if seen[name] == 1 else f"{name}-{seen[name]}"), path
