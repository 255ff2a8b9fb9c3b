"""A preset with a person's own data and numbers in it.

`None` keeps what the preset says, so that a notebook can list all constants and change one.
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
    text_column: str | None = None,
    languages: Sequence[str] | None = None,
    **changes: Any,
) -> Preset:
    """Replace a preset's texts with a person's own files or folders, and change other settings.

    Args:
        preset: Gives everything that is not given here.
        sources: Own texts. They replace the preset's conversations as well, so that nothing of
            its texts gets into the vocabulary.
        conversations: Own conversations.
        text_column: Column of `sources` that holds the text.
        languages: ISO 639 codes of the languages to keep.
        changes: Fields of `DataConfig` and `QualityConfig`; `None` keeps the preset's.

    Raises:
        ValueError: A text column is given without sources, or a value breaks its field's rule.
    """
    data, texts = preset.data, dict[str, Any]()
    if text_column is not None and not sources:
        raise ValueError(f"text_column is {text_column!r}: it needs sources of your own; name them")
    if sources:
        column = "text" if text_column is None else text_column
        texts["sources"] = tuple(
            SourceConfig(name=name, path=path, text_column=column) for name, path in _named(sources)
        )
    if sources or conversations:
        texts["conversations"] = tuple(
            ConversationSourceConfig(name=name, path=path)
            for name, path in _named(conversations or ())
        )
    names = {field.name for field in dataclasses.fields(QualityConfig)} & changes.keys()
    switches = {name: changes.pop(name) for name in names}
    if languages is not None:
        switches["languages"] = tuple(languages)
    quality = override(data.quality, **switches)
    return override(preset, data=override(data, **texts, quality=quality, **changes))


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
