"""Looking inside what a workspace holds: its training files, and the checkpoints of its runs."""

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
    """Open the index of all training files of a stage; `None` if its data are not here.

    The first time builds it: about 20 s and 40 bytes of memory a token for 14 M tokens.

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
    """Open the indexes of all training files that are here of a model in `models_root`.

    Args:
        workspace: Where data are; its name plays no part.
        model_name: The model's folder: its data have the same name, without `-chat` and the like.
        tokenizer: The model's: data of another vocabulary are not its.
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
    """Write on from a prompt with every checkpoint of a run; the rows of a table, oldest first.

    Args:
        workspace: Names the run.
        stage: Of the run.
        prompt: Text to go on with.
        tokenizer: Its vocabulary.
        runtime: Device.
        sampling: With its seed, the same for all.

    Returns:
        `checkpoint` and `text` of each; none if the run's checkpoints are not here.

    Raises:
        ValueError: A checkpoint is damaged, or in the parts of several devices.
    """
    rows = []
    found = (workspace.run_dir(stage) / "checkpoints").glob("*-" + "[0-9]" * 8)
    by_step = {path.name.rpartition("-")[2]: path for path in sorted(found)}
    for _, path in sorted(by_step.items()):  # of one step, `best` and `step` are the same weights
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
            f"checkpoint {path} does not hold a whole model: finish the run, and look at its model"
        ) from None
    return model
