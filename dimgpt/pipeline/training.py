"""A stage of training: its trainer, its finished model with a card, and its run found again."""

import functools
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from dimgpt.config import ConversationSourceConfig, SourceConfig, TrainingConfig
from dimgpt.demo.copying import copying_score
from dimgpt.evaluation.perplexity import measure_perplexity
from dimgpt.files import replace_file
from dimgpt.generation.chat import ChatSession
from dimgpt.generation.generator import TextGenerator
from dimgpt.model.lora import add_adapters
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.data import fingerprint_data, open_corpus, open_data, require_conversations
from dimgpt.pipeline.preferences import add_reference
from dimgpt.presets import PRESETS, Preset
from dimgpt.runtime import Runtime
from dimgpt.settings import from_dict, override, to_dict
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.training.journal import Observer
from dimgpt.training.micro_batch_search import wants_micro_batch_search, with_fastest_micro_batch
from dimgpt.training.run_folder import lock_run
from dimgpt.training.trainer import Trainer
from dimgpt.weights.adapter import AdapterBase, fingerprint_base
from dimgpt.weights.card import CURVES_NAME, Card
from dimgpt.weights.store import load_model, load_model_config, load_tokenizer, save_model
from dimgpt.workspace import STAGES, Stage, Workspace, load_vocabulary

HeldOut = Literal["validation", "test"]
_RECIPE = "run.json"


def match_model(workspace: Workspace, stage: Stage) -> Workspace:
    """Return the workspace with the settings of the model that a stage trains.

    Pretraining makes one as large as the vocabulary; later stages take that of the stage before as
    it is. The stage's dropout, where it has its own, goes before the model's.

    Raises:
        FileNotFoundError: There is no vocabulary, or no model to start from.
        ValueError: There are no conversations or preferences to train on.
    """
    base = workspace.base_dir(stage)
    if base is None:
        vocab_size = load_vocabulary(workspace).vocab_size
        model = override(workspace.preset.model, vocab_size=vocab_size)
    else:
        require_conversations(workspace, stage)
        if not base.exists():
            verb = {"finetuning": "train", "preferences": "finetune"}[stage]
            name = workspace.preset.name
            flag = "--preset" if name in PRESETS else "--name"
            raise FileNotFoundError(
                f"no model at {base}: run `python -m dimgpt {verb} {flag} {name}` first"
            )
        model = load_model_config(base)
    model = override(model, **_dropout_of(workspace.config(stage)))
    return override(workspace, preset=override(workspace.preset, model=model))


def build_model(workspace: Workspace, stage: Stage) -> Transformer:
    """Return a new model, or that of the stage before; fine-tuning perhaps adds adapters to it.

    Raises:
        FileNotFoundError, ValueError: As `load_model` and `require_vocabulary_of_data`.
    """
    base, config, lora = workspace.base_dir(stage), workspace.config(stage), workspace.preset.lora
    if base is not None:
        require_vocabulary_of_data(workspace, base)
        model = load_model(base, **_dropout_of(config))
        if stage == "finetuning" and lora.rank:
            torch.manual_seed(config.seed)
            add_adapters(model, lora)
        return model
    torch.manual_seed(workspace.preset.pretraining.seed)
    return Transformer(workspace.preset.model)


def build_trainer(
    workspace: Workspace,
    stage: Stage,
    *,
    runtime: Runtime,
    observers: Sequence[Observer] = (),
    branch_from: Path | None = None,
) -> Trainer:
    """Put together what a stage needs; the trainer resumes by itself if the run has begun.

    Raises:
        FileNotFoundError, ValueError: As `build_model` and `open_data`.
        RuntimeError: A micro-batch is to be searched, and another trainer is at work in the folder.
    """
    tokenizer, model = load_vocabulary(workspace), build_model(workspace, stage)
    tokenizer.require_vocab_size(model.config.vocab_size)
    base_fingerprint = fingerprint_base(model) if workspace.base_dir(stage) else ""
    config, run_dir = workspace.config(stage), workspace.run_dir(stage)
    if stage != "preferences" and wants_micro_batch_search(config, runtime):
        with lock_run(run_dir):  # the search uses all memory that it finds
            config = with_fastest_micro_batch(model, config, runtime)
    data, data_fingerprint = open_data(workspace, stage, config), fingerprint_data(workspace, stage)
    add_reference(data, model, run_dir, key=base_fingerprint + data_fingerprint, runtime=runtime)
    return Trainer(
        model,
        data,
        config,
        run_dir=run_dir,
        runtime=runtime,
        vocabulary=tokenizer.fingerprint,
        data_fingerprint=data_fingerprint,
        base_fingerprint=base_fingerprint,
        num_train_tokens=sum(file.num_tokens for file in data.corpus.train.files),
        byte_counts=None if stage == "preferences" else tokenizer.byte_counts(),
        sample=functools.partial(_sample, workspace.preset, stage, model, tokenizer),
        score=copying_score(model, tokenizer, [source.path for source in data.corpus.sources]),
        observers=observers,
        branch_from=branch_from,
        recipe={
            "stage": stage,
            "data_root": str(workspace.data_root),
            "data_name": workspace.data_name,
            "preset": to_dict(workspace.preset),
        },
    )


def save_trained(workspace: Workspace, stage: Stage, trainer: Trainer) -> Path:
    """Write the model of a finished stage, or its adapters, with tokenizer and card."""
    folder, curves = workspace.model_dir(stage), workspace.run_dir(stage) / CURVES_NAME
    model, base = trainer.folder.whole_model(), None
    if model.lora.rank:
        name = workspace.model_dir("pretraining").name
        base = AdapterBase(name=name, sha256=fingerprint_base(model), lora=model.lora)
    save_model(
        model,
        folder,
        load_vocabulary(workspace),
        card=_card(workspace, stage, trainer),
        curves=curves.read_bytes() if curves.is_file() else None,
        base=base,
    )
    return folder


def save_curves(workspace: Workspace, stage: Stage) -> Path:
    """Draw the curves of a run into its folder, where its card takes them from.

    Raises:
        FileNotFoundError: As `plot_history`.
    """
    from dimgpt.display.plots import plot_history  # takes half a second, which other verbs save

    picture, run_dir = io.BytesIO(), workspace.run_dir(stage)
    figure = plot_history(run_dir / "history.jsonl", title=f"{workspace.preset.name}, {stage}")
    figure.savefig(picture, format="png", dpi=110)
    replace_file(run_dir / CURVES_NAME, picture.getvalue())
    return run_dir / CURVES_NAME


def evaluate_documents(
    workspace: Workspace, model: Transformer, *, runtime: Runtime, split: HeldOut = "validation"
) -> list[dict[str, Any]]:
    """Measure a model on all documents of a held-out split, source by source, as rows of a table.

    Raises:
        ValueError: The data have no such split, or the model is of another vocabulary.
    """
    corpus, tokenizer = open_corpus(workspace), load_vocabulary(workspace)
    mixture = {"validation": corpus.validation, "test": corpus.test}.get(split)
    if mixture is None:
        raise ValueError(
            f"split is {split!r}: {workspace.data_folder} has no such documents; measure "
            f"validation, or make a test split with `{workspace.prepare_command} --data.test-ratio "
            "0.01` and train a new model on the rest"
        )
    tokenizer.require_vocab_size(model.config.vocab_size)
    model, byte_counts = model.to(runtime.device).eval(), tokenizer.byte_counts()
    return [
        {"source": source.name}
        | to_dict(measure_perplexity(model, file, byte_counts=byte_counts, runtime=runtime))
        for source, file in zip(corpus.sources, mixture.files, strict=True)
    ]


def require_vocabulary_of_data(workspace: Workspace, folder: Path) -> None:
    """Refuse a model folder whose ids are not those of the data.

    Raises:
        ValueError: It was trained with another vocabulary.
    """
    if load_tokenizer(folder).fingerprint != load_vocabulary(workspace).fingerprint:
        raise ValueError(
            f"{folder} was trained with another vocabulary than {workspace.vocabulary_path}: "
            "copy its vocab.txt there and prepare again, or train a new model"
        )


def open_run(name: str | Path | None, *, models_root: Path) -> tuple[Workspace, Stage]:
    """Return the workspace and the stage of a run.

    `name` is a run's folder, or a model in `models_root`, of which the stage that was trained last
    is taken; `None` takes the run that was trained last of all.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged, or has been moved to where another name's run belongs.
    """
    folder = Path(name or ".")
    if name is None or not (folder / _RECIPE).is_file():
        folder = _last_run(name, models_root)
    path = folder / _RECIPE
    try:
        recipe = json.loads(path.read_bytes()) | {"models_root": folder.absolute().parents[1]}
        stage = recipe.pop("stage")
        workspace = from_dict(Workspace, recipe)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): start the run again with `python -m dimgpt train`; it "
            "goes on from its checkpoints"
        ) from error
    if stage not in STAGES or workspace.run_dir(stage) != folder.absolute():
        raise ValueError(
            f"{folder} holds the {stage} of {workspace.preset.name!r}: give the folder the name it "
            f"had, {workspace.run_dir(stage)}"
        )
    return workspace, stage


def languages_of(sources: Iterable[SourceConfig | ConversationSourceConfig]) -> tuple[str, ...]:
    """Return those of the preset whose sources these are; of other texts nothing is known."""
    places = {(source.path, source.hub_config) for source in sources}
    for preset in PRESETS.values():
        data = preset.data
        for published in (data.sources, data.conversations, data.preferences):
            if places and places <= {(source.path, source.hub_config) for source in published}:
                return preset.languages
    return ()


def _last_run(name: str | Path | None, models_root: Path) -> Path:
    """Return the folder of the run, of a model or of all, that was trained last."""
    recipes = models_root.glob(f"*/*/{_RECIPE}")
    found = [path.parent for path in recipes if name is None or path.parts[-3] == f"{name}-runs"]
    if not found:
        asked = "" if name is None else f" of {str(name)!r}"
        raise FileNotFoundError(
            f"no run{asked} in {models_root}: begin one with `python -m dimgpt train`, or give its "
            "folder, such as models/demo-runs/pretraining"
        )

    def last_step(folder: Path) -> float:
        history = folder / "history.jsonl"
        return history.stat().st_mtime if history.is_file() else 0.0

    return max(found, key=last_step)


def _card(workspace: Workspace, stage: Stage, trainer: Trainer) -> Card:
    """Return what the card of a trained model tells: results, data and settings of its run."""
    data: Any = trainer.data  # as `open_data` made it
    sources, rows = data.corpus.sources, data.corpus.table()
    packing = {"Rows": data.row_use} if stage == "finetuning" else {}
    notes = []
    for source, row in zip(sources, rows, strict=True):
        # A path on the hub is told; a person's own path is not.
        origin = f" ({source.path})" if source.path.startswith("hf://") else ""
        if source.licence:
            row["licence"] = source.licence
        if licence := source.licence or (origin and "the licence of its publisher applies"):
            notes.append(f"Data {source.name}{origin}: {licence}.")
    return Card(
        facts={"Run": workspace.preset.name, "Stage": stage, **packing, **trainer.summary().rows()},
        languages=languages_of(sources),
        mixture=tuple(rows),
        training=to_dict(trainer.config),
        notes=tuple(notes),
    )


def _dropout_of(config: TrainingConfig) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that a run may set; `None` keeps the model's."""
    return {"dropout": config.dropout, "attention_dropout": config.attention_dropout}


def _sample(preset: Preset, stage: Stage, model: Transformer, tokenizer: Tokenizer) -> str:
    """Show how the model learns: let it complete a text, or answer a question."""
    sampling = override(preset.sampling, max_new_tokens=40, seed=0)
    if stage == "pretraining":
        return preset.prompt + TextGenerator(model, tokenizer).complete(preset.prompt, sampling)
    question = preset.questions[-1]
    session = ChatSession(model, tokenizer, sampling, preset.system_prompt)
    return f"{question} {''.join(session.ask(question))}"
