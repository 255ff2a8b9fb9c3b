"""A stage of training: put together, measured, saved, and opened again by its folder."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import torch

from dimgpt.data.token_file import read_manifest
from dimgpt.evaluation.perplexity import measure_perplexity
from dimgpt.generation.chat import ChatSession
from dimgpt.generation.generator import TextGenerator
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.cards import trained_card
from dimgpt.pipeline.data import open_corpus, open_data, require_conversations
from dimgpt.presets import Preset
from dimgpt.runtime import Runtime
from dimgpt.settings import from_dict, override, to_dict
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.training.journal import Observer
from dimgpt.training.micro_batch_search import wants_micro_batch_search, with_fastest_micro_batch
from dimgpt.training.run_folder import lock_run
from dimgpt.training.trainer import Trainer
from dimgpt.weights.card import CURVES_NAME
from dimgpt.weights.store import load_model, load_tokenizer, save_model
from dimgpt.workspace import Stage, Workspace, load_data_config, load_vocabulary

_RECIPE = "run.json"


def match_model(workspace: Workspace, stage: Stage) -> Workspace:
    """Return the workspace with the model that a stage trains.

    Pretraining makes one as large as the vocabulary; fine-tuning takes the pretrained one as it is.

    Raises:
        FileNotFoundError: There is no vocabulary, or no pretrained model.
        ValueError: There are no conversations to fine-tune on.
    """
    if stage == "finetuning":
        require_conversations(workspace)
        model = load_model(workspace.model_dir("pretraining")).config
    else:
        vocab_size = load_vocabulary(workspace).vocab_size
        model = override(workspace.preset.model, vocab_size=vocab_size)
    return override(workspace, preset=override(workspace.preset, model=model))


def build_model(workspace: Workspace, stage: Stage) -> Transformer:
    """Return a new model, or the pretrained one that fine-tuning starts from.

    Raises:
        FileNotFoundError: There is no pretrained model.
        ValueError: It was trained with another vocabulary than the data's.
    """
    if stage == "finetuning":
        folder = workspace.model_dir("pretraining")
        require_vocabulary_of_data(workspace, folder)
        return load_model(folder)
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
        RuntimeError: A micro-batch is to be searched, and another trainer is at work in the folder.
    """
    tokenizer, model = load_vocabulary(workspace), build_model(workspace, stage)
    tokenizer.require_vocab_size(model.config.vocab_size)
    base_fingerprint = _fingerprint_weights(model) if stage == "finetuning" else ""
    config = workspace.config(stage)
    if wants_micro_batch_search(config, runtime):
        with lock_run(workspace.run_dir(stage)):  # the search uses all memory that it finds
            config = with_fastest_micro_batch(model, config, runtime)
    recipe = {
        "stage": stage,
        "data_root": str(workspace.data_root),
        "data_name": workspace.data_name,
        "preset": to_dict(workspace.preset),
    }
    return Trainer(
        model,
        open_data(workspace, stage, config),
        config,
        run_dir=workspace.run_dir(stage),
        runtime=runtime,
        vocabulary=tokenizer.fingerprint,
        data_fingerprint=_fingerprint_data(workspace, stage),
        base_fingerprint=base_fingerprint,
        byte_counts=tokenizer.byte_counts(),
        sample=_sampler(workspace.preset, stage, model, tokenizer),
        observers=observers,
        branch_from=branch_from,
        recipe=recipe,
    )


def save_trained(workspace: Workspace, stage: Stage, trainer: Trainer) -> Path:
    """Write the model of a finished stage to its folder, with tokenizer and card."""
    folder, curves = workspace.model_dir(stage), workspace.run_dir(stage) / CURVES_NAME
    save_model(
        trainer.folder.whole_model(),
        folder,
        load_vocabulary(workspace),
        card=trained_card(workspace, stage, trainer),
        curves=curves.read_bytes() if curves.is_file() else None,
    )
    return folder


def evaluate_documents(
    workspace: Workspace, model: Transformer, *, runtime: Runtime
) -> list[dict[str, Any]]:
    """Measure a model on all held-out documents, source by source, as rows of a table."""
    corpus, tokenizer = open_corpus(workspace), load_vocabulary(workspace)
    tokenizer.require_vocab_size(model.config.vocab_size)
    model, byte_counts = model.to(runtime.device).eval(), tokenizer.byte_counts()
    return [
        {"source": source.name}
        | to_dict(measure_perplexity(model, file, byte_counts=byte_counts, runtime=runtime))
        for source, file in zip(corpus.sources, corpus.validation.files, strict=True)
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

    Args:
        name: A run's folder, or the name of a model, of whose stages the one that was trained last
            is taken; `None` takes the run that was trained last.
        models_root: Where names are looked for.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged, or has been moved to where another name's run belongs.
    """
    folder = Path(name or ".")
    if name is None or not (folder / _RECIPE).is_file():
        folder = _last_run(name, models_root)
    path = folder / _RECIPE
    try:
        recipe = json.loads(path.read_bytes())
        stage, preset = recipe["stage"], from_dict(Preset, recipe["preset"])
        data = {"data_root": Path(recipe["data_root"]), "data_name": recipe["data_name"]}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): start the run again with `python -m dimgpt train`; it "
            "goes on from its checkpoints"
        ) from error
    workspace = Workspace(preset=preset, models_root=folder.absolute().parents[1], **data)
    if stage not in get_args(Stage) or workspace.run_dir(stage) != folder.absolute():
        raise ValueError(
            f"{folder} holds the {stage} of {preset.name!r}: give the folder the name it had, "
            f"{workspace.run_dir(stage)}"
        )
    return workspace, stage


def _last_run(name: str | Path | None, models_root: Path) -> Path:
    """Return the folder of the run, of a model or of all, that was trained last."""
    found = {
        path.parent: path.with_name("history.jsonl")
        for path in models_root.glob(f"*/*/{_RECIPE}")
        if name is None or path.parts[-3] == f"{name}-runs"
    }
    if not found:
        asked = "" if name is None else f" of {str(name)!r}"
        raise FileNotFoundError(
            f"no run{asked} in {models_root}: begin one with `python -m dimgpt train`, or give its "
            "folder, such as models/demo-runs/pretraining"
        )
    return max(found, key=lambda folder: _time_of(found[folder]))


def _time_of(history: Path) -> float:
    return history.stat().st_mtime if history.is_file() else 0.0


def _fingerprint_data(workspace: Workspace, stage: Stage) -> str:
    """Return the SHA-256 of what the token files of a stage hold, as their manifests say."""
    config, folder = load_data_config(workspace), workspace.data_dir(stage)
    sources = config.sources if stage == "pretraining" else config.conversations
    files = {
        source.name: to_dict(read_manifest(folder / source.name))["files"] for source in sources
    }
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _fingerprint_weights(model: Transformer) -> str:
    """Return the SHA-256 of a model's weights on the CPU, in whatever file they were stored."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _sampler(
    preset: Preset, stage: Stage, model: Transformer, tokenizer: Tokenizer
) -> Callable[[], str]:
    """Return a function that shows how the model learns: it completes a text, or answers."""
    sampling = override(preset.sampling, max_new_tokens=40, seed=0)
    if stage == "pretraining":
        writer = TextGenerator(model, tokenizer)
        return lambda: preset.prompt + writer.complete(preset.prompt, sampling)

    def answer() -> str:
        session = ChatSession(model, tokenizer, sampling, preset.system_prompt)
        return f"{preset.questions[-1]} {''.join(session.ask(preset.questions[-1]))}"

    return answer
