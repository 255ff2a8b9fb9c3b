"""A stage of training: builds its trainer, saves its finished model, and reopens its run."""

import io
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dimgpt.config import TrainingConfig
from dimgpt.demo.copying import copying_score
from dimgpt.files import replace_file
from dimgpt.generation.chat import ChatSession
from dimgpt.generation.generator import TextGenerator
from dimgpt.model.lora import add_adapters
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.card import card_of
from dimgpt.pipeline.data import fingerprint_data, open_data, require_conversations
from dimgpt.pipeline.models import open_model
from dimgpt.pipeline.preferences import add_reference
from dimgpt.presets import Preset
from dimgpt.runtime import Runtime, choose_runtime
from dimgpt.settings import from_dict, override, to_dict
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.training.journal import Observer
from dimgpt.training.micro_batch_search import wants_micro_batch_search, with_fastest_micro_batch
from dimgpt.training.run_folder import lock_run
from dimgpt.training.trainer import Trainer
from dimgpt.weights import layout
from dimgpt.weights.adapter import ADAPTER_NAME, AdapterBase, fingerprint_base
from dimgpt.weights.card import CURVES_NAME
from dimgpt.weights.originals import is_original, load_weights
from dimgpt.weights.store import load_model_config, save_model
from dimgpt.workspace import STAGES, Stage, Workspace, load_vocabulary, name_flag

log = logging.getLogger(__name__)

_RECIPE = "run.json"


def match_model(workspace: Workspace, stage: Stage) -> Workspace:
    """Return the workspace with the settings of the model that a stage trains.

    Pretraining takes the preset's model with the size of the vocabulary; later stages take the
    settings of their base model. A dropout in the stage's settings replaces the model's.

    Raises:
        FileNotFoundError: There is no vocabulary, or no base model.
        ValueError: There are no conversations or preferences to train on; or as `load_weights`.
    """
    base = workspace.base_path(stage)
    if base is None:
        vocab_size = load_vocabulary(workspace).vocab_size
        model = override(workspace.preset.model, vocab_size=vocab_size)
    else:
        require_conversations(workspace, stage)
        if not base.exists() and base != workspace.finetune_from:
            verb = {"finetuning": "train", "preferences": "finetune"}[stage]
            command = f"python -m dimgpt {verb} {name_flag(workspace.preset.name)}"
            raise FileNotFoundError(f"no model at {base}: run `{command}` first")
        model = load_weights(base).config if is_original(base) else load_model_config(base)
    model = override(model, **_dropout_of(workspace.config(stage)))
    return override(workspace, preset=override(workspace.preset, model=model))


def build_model(workspace: Workspace, stage: Stage) -> Transformer:
    """Return a new model, or the base model of a later stage, with adapters if LoRA is on.

    Raises:
        FileNotFoundError, ValueError: As `open_model` and `require_vocabulary_of_data`; or the run
            would overwrite its base model, or its adapters would not be in the same folder.
    """
    config, lora = workspace.config(stage), workspace.preset.lora
    base = workspace.base_path(stage)
    if base is None:
        torch.manual_seed(config.seed)
        return Transformer(workspace.preset.model)
    _require_apart(workspace, stage, base)
    vocabulary_path, runtime = workspace.data_root / "vocab.txt", choose_runtime("fp32", "cpu")
    model, tokenizer = open_model(base, runtime=runtime, vocabulary_path=vocabulary_path)
    require_vocabulary_of_data(workspace, tokenizer, source=base)
    changed = override(model.config, **_dropout_of(config))
    if changed != model.config:
        model = layout.build_model(changed, model.state_dict(), source=str(base))
    if stage == "finetuning" and lora.rank:
        torch.manual_seed(config.seed)
        add_adapters(model, lora)
    return model


def build_trainer(
    workspace: Workspace,
    stage: Stage,
    *,
    runtime: Runtime,
    observers: Sequence[Observer] = (),
    branch_from: Path | None = None,
) -> Trainer:
    """Build the trainer of a stage; it resumes by itself if the run has begun.

    Raises:
        FileNotFoundError, ValueError: As `build_model` and `open_data`.
        RuntimeError: The search for a micro-batch found another trainer in the run's folder.
    """
    tokenizer, model = load_vocabulary(workspace), build_model(workspace, stage)
    tokenizer.require_vocab_size(model.config.vocab_size)
    base_fingerprint = fingerprint_base(model) if workspace.base_path(stage) else ""
    config, run_dir = workspace.config(stage), workspace.run_dir(stage)
    _warn_of_idle_steps(config)
    if stage != "preferences" and wants_micro_batch_search(config, runtime):
        with lock_run(run_dir):  # the search may use all free memory
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
        sample=_sampler(workspace.preset, stage, model, tokenizer),
        score=copying_score(model, tokenizer, [source.path for source in data.corpus.sources]),
        observers=observers,
        branch_from=branch_from,
        recipe=_recipe(workspace, stage),
    )


def _warn_of_idle_steps(config: TrainingConfig) -> None:
    if config.num_idle_steps:
        log.warning(
            "the learning rate falls to 0 too early, so %d of %d steps learn nothing: raise "
            "decay_steps (%d) or min_learning_rate",
            config.num_idle_steps,
            config.max_steps,
            config.num_decay_steps,
        )


def save_trained(workspace: Workspace, stage: Stage, trainer: Trainer) -> Path:
    """Write the model of a finished stage, or its adapters, with tokenizer and card."""
    folder, curves = workspace.model_dir(stage), workspace.run_dir(stage) / CURVES_NAME
    model, path, base = trainer.folder.whole_model(), workspace.base_path(stage), None
    if path and model.lora.rank:
        name, sha256 = path.absolute().name, fingerprint_base(model)
        base = AdapterBase(name=name, sha256=sha256, lora=model.lora)
    save_model(
        model,
        folder,
        load_vocabulary(workspace),
        card=card_of(workspace, stage, trainer, model),
        curves=curves.read_bytes() if curves.is_file() else None,
        base=base,
    )
    return folder


def save_curves(workspace: Workspace, stage: Stage) -> Path:
    """Draw the curves of a run into its folder; the model card includes this picture.

    Raises:
        FileNotFoundError: As `plot_history`.
    """
    from dimgpt.display.plots import plot_history  # importing it takes 0.5 s

    picture, run_dir = io.BytesIO(), workspace.run_dir(stage)
    figure = plot_history(run_dir / "history.jsonl", title=f"{workspace.preset.name}, {stage}")
    figure.savefig(picture, format="png", dpi=130)
    replace_file(run_dir / CURVES_NAME, picture.getvalue())
    return run_dir / CURVES_NAME


def require_vocabulary_of_data(workspace: Workspace, tokenizer: Tokenizer, *, source: Path) -> None:
    """Check that the tokenizer of the model at `source` has the vocabulary of the data.

    Raises:
        ValueError: It has another vocabulary.
    """
    if tokenizer.fingerprint != load_vocabulary(workspace).fingerprint:
        raise ValueError(
            f"{source} was trained with another vocabulary than {workspace.vocabulary_path}: "
            "prepare the data with the model's (`prepare --name NEW --data.tokenizer.path FILE`)"
        )


def open_run(name: str | Path | None, *, models_root: Path) -> tuple[Workspace, Stage]:
    """Return the workspace and the stage of a run.

    `name` is the folder of a run, or the name of a model in `models_root`, which stands for its
    last trained stage. `None` takes the last trained run of all models.

    Raises:
        FileNotFoundError: There is no such run.
        ValueError: The run is damaged, or its folder was renamed.
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
            "continues from its checkpoints"
        ) from error
    if stage not in STAGES or workspace.run_dir(stage) != folder.absolute():
        raise ValueError(
            f"{folder} contains the {stage} of {workspace.preset.name!r}: rename the folder to "
            f"{workspace.run_dir(stage)}"
        )
    return workspace, stage


def _recipe(workspace: Workspace, stage: Stage) -> dict[str, Any]:
    """Return the content of `run.json` for `open_run`, which knows `models_root` by its path."""
    values = to_dict(workspace) | {"stage": stage}
    del values["models_root"]
    return {name: str(x) if isinstance(x, Path) else x for name, x in values.items()}


def _last_run(name: str | Path | None, models_root: Path) -> Path:
    """Return the folder of the run that was trained last, of one model or of all."""
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


def _dropout_of(config: TrainingConfig) -> dict[str, Any]:
    """Return the fields of `ModelConfig` that a run may set; `None` keeps the model's."""
    return {"dropout": config.dropout, "attention_dropout": config.attention_dropout}


def _require_apart(workspace: Workspace, stage: Stage, base: Path) -> None:
    """Check that a run does not overwrite its base model, and that adapters are saved next to it.

    Raises:
        ValueError: It does, or they are not.
    """
    target = workspace.model_dir(stage)
    rank = workspace.preset.lora.rank if stage == "finetuning" else 0
    if base.resolve() == target.resolve():
        raise ValueError(
            f"finetune_from is {base}: this run saves its model there; give it another --name"
        )
    is_beside = base.absolute().parent.resolve() == target.absolute().parent.resolve()
    if rank and (is_original(base) or not is_beside):
        raise ValueError(
            f"finetune_from is {base} and lora.rank {rank}: adapters need their base model as a "
            f"folder in {workspace.models_root}; copy it there, or import it with `python -m "
            "dimgpt import`"
        )
    if rank and (base / ADAPTER_NAME).is_file():
        raise ValueError(
            f"finetune_from is {base} and lora.rank {rank}: this model has adapters itself; merge "
            "them with `python -m dimgpt export MODEL --to safetensors`, and begin with the result"
        )


def _sampler(
    preset: Preset, stage: Stage, model: Transformer, tokenizer: Tokenizer
) -> Callable[[], str]:
    """Return a function that generates a sample: a completed text, or an answer to a question."""
    sampling = override(preset.sampling, max_new_tokens=40, seed=0)
    if stage == "pretraining":
        writer, prompt = TextGenerator(model, tokenizer), preset.prompt
        return lambda: prompt + writer.complete(prompt, sampling)
    question = preset.questions[-1]
    session = ChatSession(model, tokenizer, sampling, preset.system_prompt)  # may log a warning

    def answer() -> str:
        session.reset()
        return f"{question} {''.join(session.ask(question))}"

    return answer
