"""Collects the model card of a trained model: results, data and settings of its run."""

from collections.abc import Iterable
from typing import Any

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.files import sha256_of
from dimgpt.generation.generator import TextGenerator
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.data import fingerprint_manifests
from dimgpt.pipeline.evaluation import measure_copying
from dimgpt.presets import PRESETS
from dimgpt.settings import to_dict
from dimgpt.training.trainer import Trainer
from dimgpt.weights.card import Card
from dimgpt.workspace import Stage, Workspace, load_vocabulary


def card_of(workspace: Workspace, stage: Stage, trainer: Trainer, model: Transformer) -> Card:
    """Return the card of a trained model; `model` is the trainer's model, not sharded."""
    data: Any = trainer.data  # one of the classes that `open_data` returns
    sources, rows = data.corpus.sources, data.corpus.table()
    base = workspace.base_path(stage)
    begun = {"Base model": base.absolute().name} if base else {}
    if stage == "finetuning":
        begun["Rows"] = data.row_use
    notes = []
    for source, row in zip(sources, rows, strict=True):
        # A path on the hub is published; a path on a person's disk is not.
        origin = f" ({source.path})" if source.path.startswith("hf://") else ""
        if source.licence:
            row["licence"] = source.licence
        if licence := source.licence or (origin and "the licence of its publisher applies"):
            notes.append(f"Data {source.name}{origin}: {licence}.")
    # Later stages learn to answer: texts that they generate without a prompt say little.
    writer = TextGenerator(model, load_vocabulary(workspace)) if not base else None
    copied = measure_copying(data.corpus.train, data.corpus.validation, writer)
    facts = {"Run": workspace.preset.name, "Stage": stage, **begun, **trainer.summary().rows()}
    checkpoint = trainer.folder.checkpoints.path_of("step", trainer.state.step)
    run = workspace.run_dir(stage)
    return Card(
        facts=facts | copied,
        languages=languages_of(sources),
        mixture=tuple(rows),
        training=to_dict(trainer.config),
        notes=tuple(notes),
        origin={
            "run": f"{run.parent.name}/{run.name}",
            "checkpoint": checkpoint.name,
            "manifest_sha256": sha256_of(checkpoint / "manifest.json"),
            "data_sha256": fingerprint_manifests(workspace, stage),
        },
    )


def languages_of(sources: Iterable[SourceConfig | ConversationSourceConfig]) -> tuple[str, ...]:
    """Return the languages of the preset that has these sources; none if no preset has them."""
    places = {(source.path, source.hub_config) for source in sources}
    for preset in PRESETS.values():
        data = preset.data
        for published in (data.sources, data.conversations, data.preferences):
            if places and places <= {(source.path, source.hub_config) for source in published}:
                return preset.languages
    return ()
