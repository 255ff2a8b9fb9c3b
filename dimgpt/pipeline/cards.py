"""The card of a trained model: results, data and settings of its run, and the curves."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.files import replace_file
from dimgpt.presets import PRESETS
from dimgpt.settings import to_dict
from dimgpt.training.trainer import Trainer
from dimgpt.weights.card import CURVES_NAME, Card
from dimgpt.workspace import Stage, Workspace

_PUBLIC = "hf://"


def trained_card(workspace: Workspace, stage: Stage, trainer: Trainer) -> Card:
    """Return the card of the model that a trainer has trained."""
    corpus: Any = trainer.data.corpus  # type: ignore[attr-defined]  # as `open_data` made it
    sources, rows = corpus.sources, corpus.table()
    for source, row in zip(sources, rows, strict=True):
        if source.licence:
            row["licence"] = source.licence
    return Card(
        facts={"Run": workspace.preset.name, "Stage": stage, **trainer.summary().rows()},
        languages=languages_of(sources),
        mixture=tuple(rows),
        training=to_dict(trainer.config),
        notes=tuple(filter(None, map(_note, sources))),
    )


def save_curves(workspace: Workspace, stage: Stage) -> Path:
    """Draw the curves of a stage's run into its folder, where its card takes them from.

    Raises:
        FileNotFoundError: The run has not written anything yet.
    """
    from dimgpt.display.plots import plot_history  # takes half a second, which other verbs save

    picture, run_dir = io.BytesIO(), workspace.run_dir(stage)
    figure = plot_history(run_dir / "history.jsonl", title=f"{workspace.preset.name}, {stage}")
    figure.savefig(picture, format="png", dpi=110)
    replace_file(run_dir / CURVES_NAME, picture.getvalue())
    return run_dir / CURVES_NAME


def languages_of(sources: Iterable[SourceConfig | ConversationSourceConfig]) -> tuple[str, ...]:
    """Return those of the preset whose sources these are; of other texts nothing is known."""
    places = {(source.path, source.hub_config) for source in sources}
    for preset in PRESETS.values():
        for published in (preset.data.sources, preset.data.conversations):
            if places and places <= {(source.path, source.hub_config) for source in published}:
                return preset.languages
    return ()


def _note(source: SourceConfig | ConversationSourceConfig) -> str:
    """Say where a source is from and what its publisher allows; a person's own path stays out."""
    origin = f" ({source.path})" if source.path.startswith(_PUBLIC) else ""
    if not source.licence and not origin:
        return ""
    return (
        f"Data {source.name}{origin}: {source.licence or 'the licence of its publisher applies'}."
    )
