"""Shows the curves of a run in TensorBoard, Weights & Biases or trackio.

Each is an optional package. A tracker that fails is switched off and the run goes on: the values
are in `history.jsonl`. `trackers.json` keeps the id of the run at each service, so that a resumed
run stays one curve.
"""

import contextlib
import json
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dimgpt.config import Tracker
from dimgpt.files import replace_file

log = logging.getLogger(__name__)

Record = Mapping[str, Any]
# How to log values at a step, and how to close the tracker.
Opened = tuple[Callable[[dict[str, float], int], None], Callable[[], None]]

_SHOWN = {
    "step": "loss accuracy grad_norm learning_rate tokens_per_second mfu num_skipped".split(),
    "validation": ["loss", "accuracy", "bits_per_byte"],
}


@contextlib.contextmanager
def open_trackers(
    names: Sequence[Tracker], run_dir: Path, *, step: int, settings: Mapping[str, Any]
) -> Iterator[list[Callable[[Record], None]]]:
    """Yield an observer for each tracker, and close the trackers at the end.

    Args:
        names: The trackers to open.
        run_dir: The run's folder; its last two names are the run's name.
        step: Where the run resumes; a tracker's values of later steps are replaced.
        settings: Shown beside the curves.

    Raises:
        ImportError: The package of a tracker is not installed.
    """
    with contextlib.ExitStack() as stack:
        observers = []
        for name in names:
            open_one = _open_tensorboard if name == "tensorboard" else _open_service
            write, close = open_one(name, run_dir, step, settings)
            observers.append(_observer(name, write))
            stack.callback(_shielded(name, close))
        yield observers


def _open_tensorboard(name: str, run_dir: Path, step: int, settings: Mapping[str, Any]) -> Opened:
    writer = _package(name).SummaryWriter(str(run_dir / name), purge_step=step + 1)
    rows = "\n".join(f"| {key} | {value} |" for key, value in settings.items())
    writer.add_text("settings", f"| setting | value |\n| --- | --- |\n{rows}", step)

    def write(values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            writer.add_scalar(key, value, step)

    return write, writer.close


def _open_service(name: str, run_dir: Path, step: int, settings: Mapping[str, Any]) -> Opened:
    """Open wandb or trackio, whose interfaces differ in a few options only."""
    package = _package(name)
    run_name = "-".join(run_dir.absolute().parts[-2:])
    options: dict[str, Any] = {"project": "dimgpt", "resume": "allow", "config": dict(settings)}
    if name == "trackio":  # identifies a run by its name
        run_name = f"{run_name}-{_identity(run_dir, 'trackio_run')}"
        package.init(name=run_name, embed=False, **options)
        return lambda values, step: package.log(values, step=step), package.finish
    identity = _identity(run_dir, "wandb_run_id")
    run = package.init(name=run_name, id=identity, dir=str(run_dir), **options)
    # wandb's own counter cannot go back, and a crashed run repeats steps since the checkpoint.
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return lambda values, step: run.log({**values, "step": step}), run.finish


def _package(name: str) -> Any:
    try:
        if name == "wandb":
            import wandb as package
        elif name == "trackio":
            import trackio as package
        else:
            import torch.utils.tensorboard as package
    except ImportError as error:
        raise ImportError(
            f"trackers has {name}, which is not installed: pip install {name}, or remove it"
        ) from error
    return package


def _identity(run_dir: Path, key: str) -> str:
    """Return the id of this run at a service; create it when the run first opens the service."""
    path = run_dir / "trackers.json"
    known = json.loads(path.read_bytes()) if path.is_file() else {}
    if key not in known:
        known[key] = uuid.uuid4().hex[:8]
        replace_file(path, json.dumps(known).encode())
    return known[key]


def _observer(name: str, write: Callable[..., None]) -> Callable[[Record], None]:
    """Return an observer that passes the shown values of each record to a tracker."""
    safely = _shielded(name, write)

    def watch(record: Record) -> None:
        kind = "train" if record["kind"] == "step" else record["kind"]
        values = {
            f"{kind}/{key}": record[key]
            for key in _SHOWN.get(record["kind"], ())
            if record.get(key) is not None
        }
        if values:
            safely(values, record["step"])

    return watch


def _shielded(name: str, work: Callable[..., None]) -> Callable[..., None]:
    """Call a tracker until it fails once; log that, and never call it again."""
    has_failed = False

    def try_to(*arguments: Any) -> None:
        nonlocal has_failed
        if not has_failed:
            try:
                work(*arguments)
            except Exception as error:
                has_failed = True
                log.warning("%s failed (%s): the run continues without it", name, error)

    return try_to
