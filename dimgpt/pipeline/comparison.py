"""Compares several runs: their curves, the settings that differ, and their results."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dimgpt.display.tables import Table
from dimgpt.model.flops import training_flops_per_token
from dimgpt.pipeline.training import open_run
from dimgpt.settings import to_dict
from dimgpt.training.journal import read_history
from dimgpt.workspace import Stage, Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = ("step", "tokens", "seconds", "flops", "kind", "loss", "accuracy", "bits_per_byte")


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Several runs, each with its own label.

    `seconds` is the time of all sessions, with validations and samples. Pauses between sessions do
    not count, nor do steps that a crash lost: a run resumes with the clock of its checkpoint.
    `tokens` and `flops` count the same steps. A run that branched from another one starts with the
    seconds, tokens and FLOPs of that one. FLOPs are those of forward and backward pass, computed
    from the shape of the model.
    """

    curves: Mapping[str, Sequence[Mapping[str, Any]]]
    """Label -> its steps and validations in order, each with the columns of `to_csv`."""
    settings: Table
    """Settings that differ between runs, one a row."""
    results: Table
    """The latest figures, one run a row."""

    def plot(self) -> "Figure":
        """Draw the losses against tokens, hours and FLOPs."""
        from dimgpt.display.plots import plot_comparison  # importing it takes 0.5 s

        return plot_comparison(self.curves)

    def to_csv(self) -> str:
        """Return the curves as CSV, one record a line.

        The columns are run, step, tokens, seconds, flops, kind, loss, accuracy, bits_per_byte.
        Values that were not measured, or were not finite, are empty.
        """
        text = io.StringIO()
        table = csv.DictWriter(text, ("run", *_COLUMNS), lineterminator="\n")
        table.writeheader()
        for label, rows in self.curves.items():
            table.writerows({"run": label, **row} for row in rows)
        return text.getvalue()


def compare_runs(runs: Sequence[str | Path], *, models_root: Path) -> Comparison:
    """Compare runs, finished or still training.

    Args:
        runs: The folder of each run, or the name of a model in `models_root`, which stands for its
            pretraining. A run that is given twice is shown once.
        models_root: Folder with the models and their runs.

    Raises:
        FileNotFoundError: A run does not exist, or has not recorded a step yet.
        ValueError: No run is given; or as `open_run`.
    """
    if not runs:
        raise ValueError("no run to compare: give folders of runs, such as models/NAME-runs/STAGE")
    folders = list(dict.fromkeys(_find(run, models_root).resolve() for run in runs))
    opened = [open_run(folder, models_root=models_root) for folder in folders]
    labels = _labels(folders)
    curves = {
        label: _read_curves(folder, *run)
        for label, folder, run in zip(labels, folders, opened, strict=True)
    }
    settings = dict(zip(labels, (_settings(*run) for run in opened), strict=True))
    return Comparison(
        curves=curves,
        settings=Table.of(_differences(settings), title="Settings that differ"),
        results=Table.of(
            [{"run": label, **_result(rows)} for label, rows in curves.items()], title="Results"
        ),
    )


def _find(run: str | Path, models_root: Path) -> Path:
    """Return the folder of a run, or of the pretraining of a model's name."""
    for folder in (Path(run), models_root / f"{run}-runs" / "pretraining"):
        if (folder / "run.json").is_file():
            return folder
    raise FileNotFoundError(
        f"no run at {run}, and no pretraining of this name in {models_root}: give the folder of a "
        "run, such as models/demo-runs/finetuning"
    )


def _labels(folders: Sequence[Path]) -> list[str]:
    """Return the ends of the paths, as short as they can be without equal ones: `NAME/STAGE`."""
    length, labels = 2, [""]
    while len(set(labels)) < len(folders) or not all(labels):
        labels = ["/".join(folder.parts[-length:]) for folder in folders]
        length += 1
    return labels


def _read_curves(folder: Path, workspace: Workspace, stage: Stage) -> list[dict[str, Any]]:
    path = folder / "history.jsonl"
    records = read_history(path) if path.is_file() else []
    is_frozen = stage == "finetuning" and workspace.preset.lora.rank > 0
    cost = training_flops_per_token(workspace.preset.model, is_frozen=is_frozen)
    rows = [
        {name: (record | {"flops": record["tokens"] * cost}).get(name) for name in _COLUMNS}
        for record in records
        if record["kind"] in ("step", "validation")
    ]
    if not rows:
        raise FileNotFoundError(
            f"{path} has no step yet: start the training first, or leave this run out"
        )
    return rows


def _settings(workspace: Workspace, stage: Stage) -> dict[str, Any]:
    """Return the settings of a run by the names of their flags, and the folder of its data."""
    base = workspace.base_path(stage)
    values = {"stage": stage, "data": str(workspace.data_folder), "begins with": base}
    tables: dict[str, Any] = {"model": workspace.preset.model, "training": workspace.config(stage)}
    if stage == "finetuning":
        values["packing"] = workspace.packing
        tables["lora"] = workspace.preset.lora
    for table, config in tables.items():
        values |= {f"{table}.{name}": value for name, value in to_dict(config).items()}
    return values


def _differences(settings: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each setting that differs between the runs; `settings` is by label."""
    rows = []
    for name in dict.fromkeys(name for values in settings.values() for name in values):
        cells = {label: values.get(name, "–") for label, values in settings.items()}
        if any(cell != next(iter(cells.values())) for cell in cells.values()):
            rows.append({"setting": name, **cells})
    return rows


def _result(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    last = rows[-1]
    validations = [row for row in rows if row["kind"] == "validation"]
    losses = [row["loss"] for row in validations if _is_finite(row["loss"])]
    per_byte = [row["bits_per_byte"] for row in validations if _is_finite(row["bits_per_byte"])]
    return {
        "steps": last["step"],
        "tokens": last["tokens"],
        "FLOPs": f"{last['flops']:.2e}",
        "hours": "–" if last["seconds"] is None else last["seconds"] / 3600,
        "best validation loss": min(losses, default="–"),
        "last validation loss": losses[-1] if losses else "–",
        "bits per byte": per_byte[-1] if per_byte else "–",
    }


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
