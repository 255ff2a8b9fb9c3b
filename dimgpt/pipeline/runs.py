"""Runs by their folders: what it takes to go on with one, and where they are."""

import json
from pathlib import Path
from typing import Any, get_args

from dimgpt.presets import Preset
from dimgpt.settings import from_dict, to_dict
from dimgpt.workspace import Stage, Workspace

_RECIPE, _HISTORY = "run.json", "history.jsonl"
_EXAMPLE = "models/demo-runs/pretraining"


def describe_run(workspace: Workspace, stage: Stage) -> dict[str, Any]:
    """Return what `open_run` reads: the settings of a run, all of them, as JSON holds them."""
    return {
        "stage": stage,
        "data_root": str(workspace.data_root),
        "data_name": workspace.data_name,
        "preset": to_dict(workspace.preset),
    }


def open_run(folder: Path) -> tuple[Workspace, Stage]:
    """Return the workspace and the stage of the run in a folder.

    Raises:
        FileNotFoundError: It is no folder of a run.
        ValueError: It is damaged, or has been moved to where another name's run belongs.
    """
    path = folder / _RECIPE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: give the folder of a run, such as {_EXAMPLE}")
    try:
        recipe = json.loads(path.read_bytes())
        stage, preset = recipe["stage"], from_dict(Preset, recipe["preset"])
        data_root, data_name = Path(recipe["data_root"]), recipe["data_name"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is damaged ({error}): start the run again with `python -m dimgpt train`; it "
            "goes on from its checkpoints"
        ) from error
    models_root = folder.absolute().parents[1]
    workspace = Workspace(
        preset=preset, data_root=data_root, models_root=models_root, data_name=data_name
    )
    if stage not in get_args(Stage) or workspace.run_dir(stage) != folder.absolute():
        raise ValueError(
            f"{folder} holds the {stage} of {preset.name!r}: give the folder the name it had, "
            f"{workspace.run_dir(stage)}"
        )
    return workspace, stage


def find_run(name: str | None, *, models_root: Path) -> Path:
    """Return the folder of a run.

    Args:
        name: A run's folder, or the name of a model, of whose stages the one that was trained last
            is taken; `None` takes the one that was trained last of all.
        models_root: Where names are looked for.

    Raises:
        FileNotFoundError: There is none.
    """
    if name is not None and (Path(name) / _RECIPE).is_file():
        return Path(name)
    found = [
        path.parent
        for path in models_root.glob(f"*/*/{_RECIPE}")
        if name is None or path.parts[-3] == f"{name}-runs"
    ]
    if not found:
        asked = "" if name is None else f" of {name!r}"
        raise FileNotFoundError(
            f"no run{asked} in {models_root}: begin one with `python -m dimgpt train`, or give its "
            f"folder, such as {_EXAMPLE}"
        )
    return max(found, key=_last_touched)


def _last_touched(run_dir: Path) -> float:
    path = run_dir / _HISTORY
    return path.stat().st_mtime if path.is_file() else 0.0
