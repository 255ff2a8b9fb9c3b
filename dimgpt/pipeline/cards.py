"""What a finished stage tells about its model: results, data, settings. Nothing is invented."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.data.reading.finetuning import FinetuningData
from dimgpt.data.reading.pretraining import PretrainingData
from dimgpt.files import replace_file
from dimgpt.presets import PRESETS
from dimgpt.settings import to_dict
from dimgpt.training.trainer import Trainer
from dimgpt.weights.card import CURVES_NAME, Card
from dimgpt.workspace import Stage, Workspace

_PUBLIC = "hf://"


def trained_card(workspace: Workspace, stage: Stage, trainer: Trainer) -> Card:
    """Return the card of the model that a trainer has trained."""
    data = trainer.data
    mixture: list[dict[str, Any]] = []
    sources: Iterable[SourceConfig | ConversationSourceConfig] = ()
    if isinstance(data, PretrainingData):
        sources = data.corpus.sources
        rows = data.corpus.table()
        licences = {source.name: source.licence for source in data.corpus.sources}
        mixture = [row | _licence_cell(licences[row["source"]]) for row in rows]
    elif isinstance(data, FinetuningData):
        sources = data.corpus.groups
        files = zip(sources, data.corpus.train.files, data.corpus.train.ratios, strict=True)
        mixture = [
            {
                "source": group.name,
                "conversations": file.num_documents,
                "tokens": file.num_tokens,
                "ratio": float(ratio),
                **_licence_cell(group.licence),
            }
            for group, file, ratio in files
        ]
    facts = {"Run": workspace.preset.name, "Stage": stage, **trainer.summary().rows()}
    return Card(
        facts=facts,
        languages=languages_of(sources),
        mixture=tuple(mixture),
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


def curves_of(workspace: Workspace, stage: Stage) -> bytes | None:
    """Return the picture of a stage's run, where one was drawn."""
    path = workspace.run_dir(stage) / CURVES_NAME
    return path.read_bytes() if path.is_file() else None


def languages_of(sources: Iterable[SourceConfig | ConversationSourceConfig]) -> tuple[str, ...]:
    """Return those of the preset whose sources these are; of other texts nothing is known."""
    places = {(source.path, source.hub_config) for source in sources}
    for preset in PRESETS.values():
        for published in (preset.data.sources, preset.data.conversations):
            if places and places <= {(source.path, source.hub_config) for source in published}:
                return preset.languages
    return ()


def _licence_cell(licence: str) -> dict[str, str]:
    """Return the column of a source's licence, where one is known."""
    return {"licence": licence} if licence else {}


def _note(source: SourceConfig | ConversationSourceConfig) -> str:
    """Say where a source is from and what its publisher allows; a person's own path stays out."""
    licence = getattr(source, "licence", None)
    origin = f" ({source.path})" if source.path.startswith(_PUBLIC) else ""
    if not licence and not origin:
        return ""
    return f"Data {source.name}{origin}: {licence or 'the licence of its publisher applies'}."
