"""Inspects the training files of a workspace, and the checkpoints of its runs."""

from pathlib import Path

from dimgpt.config import ModelConfig, SamplingConfig
from dimgpt.generation.generator import TextGenerator
from dimgpt.inspection.passages import PassageIndex
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime
from dimgpt.settings import from_dict, override
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.training.checkpoint import CheckpointStore
from dimgpt.workspace import (
    Stage,
    Workspace,
    load_data_config,
    load_vocabulary,
    name_of_data,
)


def open_passages(workspace: Workspace, stage: Stage = "pretraining") -> PassageIndex | None:
    """Open the index of all training files of a stage; `None` if the data do not exist.

    The first call builds the index. That takes 40 bytes of memory a token, and about 20 s for 14 M
    tokens.

    Raises:
        ValueError: As `PassageIndex.open`.
    """
    if not workspace.data_config_path.exists():
        return None
    data = load_data_config(workspace)
    names = {
        "pretraining": [source.name for source in data.sources],
        "finetuning": [group.name for group in data.conversations],
        "preferences": [group.name for group in data.preferences],
    }
    folders = [workspace.data_dir(stage) / name for name in names[stage]]
    return PassageIndex.open(folders, fingerprint=load_vocabulary(workspace).fingerprint)


def passages_of_model(
    workspace: Workspace, model_name: str, tokenizer: Tokenizer
) -> list[PassageIndex]:
    """Open the indexes of the training files of a model, as far as these files exist.

    Args:
        workspace: Gives the folder of all data; its preset's name does not matter.
        model_name: Name of the model's folder. Its data have the same name, without an ending like
            `-chat`.
        tokenizer: The model's tokenizer; data with another vocabulary are left out.
    """
    name = name_of_data(model_name)
    place = override(workspace, preset=override(workspace.preset, name=name), data_name=None)
    if not place.data_config_path.exists():
        return []
    if load_vocabulary(place).fingerprint != tokenizer.fingerprint:
        return []
    stages: tuple[Stage, ...] = ("pretraining", "finetuning")
    found = (open_passages(place, stage) for stage in stages if place.data_dir(stage).exists())
    return [index for index in found if index is not None]


def answers_of_checkpoints(
    workspace: Workspace,
    stage: Stage,
    prompt: str,
    tokenizer: Tokenizer,
    *,
    runtime: Runtime,
    sampling: SamplingConfig,
) -> list[dict[str, str]]:
    """Continue a prompt with every checkpoint of a run; return table rows, oldest first.

    Args:
        workspace: The workspace of the run.
        stage: The stage of the run.
        prompt: Text to continue.
        tokenizer: The vocabulary of the run.
        runtime: Device.
        sampling: Settings and seed, the same for all checkpoints.

    Returns:
        `checkpoint` and `text` of each checkpoint; no rows if the run has none.

    Raises:
        ValueError: A checkpoint is damaged, or was saved in parts by several devices.
    """
    rows = []
    found = (workspace.run_dir(stage) / "checkpoints").glob("*-" + "[0-9]" * 8)
    by_step = {path.name.rpartition("-")[2]: path for path in sorted(found)}
    for _, path in sorted(by_step.items()):  # `best` and `step` of one step have equal weights
        model = _load(path).to(runtime.device).eval()
        text = TextGenerator(model, tokenizer).complete(prompt, sampling)
        rows.append({"checkpoint": path.name, "text": prompt + text})
    return rows


def _load(path: Path) -> Transformer:
    checkpoint = CheckpointStore(path.parent).load(path)
    model = Transformer(from_dict(ModelConfig, checkpoint.state["model"]))
    try:
        model.load_state_dict(checkpoint.tensors.get("model", {}))
    except RuntimeError:  # in parts, or an adapter alone
        raise ValueError(
            f"checkpoint {path} has no complete model: finish the run, and inspect its final model"
        ) from None
    return model
