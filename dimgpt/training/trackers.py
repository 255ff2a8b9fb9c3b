"""The curves of a run in TensorBoard, Weights & Biases or trackio.

Each is an optional package, and an observer like any other. A tracker that fails is left alone and
the run goes on: what it would have shown is in `history.jsonl`. How a service keeps the runs apart
is remembered in `trackers.json`, so that a run that goes on stays one curve.
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
Log = Callable[[dict[str, float], int], None]
Close = Callable[[], None]

_PROJECT = "dimgpt"
_SHOWN = {
    "step": (
        "loss",
        "accuracy",
        "grad_norm",
        "learning_rate",
        "tokens_per_second",
        "mfu",
        "num_skipped",
    ),
    "validation": ("loss", "accuracy", "bits_per_byte"),
}


@contextlib.contextmanager
def open_trackers(
    names: Sequence[Tracker], run_dir: Path, *, step: int, settings: Mapping[str, Any]
) -> Iterator[list[Callable[[Record], None]]]:
    """Yield an observer for each tracker, and close them at the end.

    Args:
        names: Which ones.
        run_dir: The run's folder; its last two names are the run's name.
        step: Where the run goes on; what a tracker shows of later steps is replaced.
        settings: Shown beside the curves.

    Raises:
        ImportError: The package of one is not installed.
    """
    openers = {"tensorboard": _open_tensorboard, "wandb": _open_wandb, "trackio": _open_trackio}
    with contextlib.ExitStack() as stack:
        observers = []
        for name in names:
            write, close = openers[name](run_dir, step, settings)
            observers.append(_observer(name, write))
            stack.callback(_shielded(name, close))
        yield observers


def _observer(name: str, write: Log) -> Callable[[Record], None]:
    def watch(record: Record) -> None:
        kind = "train" if record["kind"] == "step" else record["kind"]
        values = {
            f"{kind}/{key}": record[key]
            for key in _SHOWN.get(record["kind"], ())
            if record.get(key) is not None
        }
        if values:
            safely(values, record["step"])

    safely = _shielded(name, write)
    return watch


def _shielded(name: str, work: Callable[..., None]) -> Callable[..., None]:
    """Let a failing tracker fail once, and be silent from then on."""
    has_failed = False

    def try_to(*arguments: Any) -> None:
        nonlocal has_failed
        if not has_failed:
            try:
                work(*arguments)
            except Exception as error:
                has_failed = True
                log.warning("%s does not work any more (%s): the run goes on", name, error)

    return try_to


def _open_tensorboard(run_dir: Path, step: int, settings: Mapping[str, Any]) -> tuple[Log, Close]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(_how_to_install("tensorboard")) from error
    writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=step + 1)
    writer.add_text("settings", _as_table(settings), step)

    def write(values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            writer.add_scalar(key, value, step)

    return write, writer.close


def _open_wandb(run_dir: Path, step: int, settings: Mapping[str, Any]) -> tuple[Log, Close]:
    try:
        import wandb
    except ImportError as error:
        raise ImportError(_how_to_install("wandb")) from error
    run = wandb.init(
        project=_PROJECT,
        name=_run_name(run_dir),
        id=_identity(run_dir, "wandb_run_id"),
        resume="allow",
        dir=str(run_dir),
        config=dict(settings),
    )
    # Its own counter only rises: after a crash the steps since the checkpoint come again.
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return lambda values, step: run.log({**values, "step": step}), run.finish


def _open_trackio(run_dir: Path, step: int, settings: Mapping[str, Any]) -> tuple[Log, Close]:
    try:
        import trackio
    except ImportError as error:
        raise ImportError(_how_to_install("trackio")) from error
    name = f"{_run_name(run_dir)}-{_identity(run_dir, 'trackio_run')}"
    trackio.init(project=_PROJECT, name=name, resume="allow", config=dict(settings), embed=False)
    return lambda values, step: trackio.log(values, step=step), trackio.finish


def _identity(run_dir: Path, key: str) -> str:
    """Return what a service calls this run, chosen when it first saw it."""
    path = run_dir / "trackers.json"
    known = json.loads(path.read_bytes()) if path.is_file() else {}
    if key not in known:
        known[key] = uuid.uuid4().hex[:8]
        replace_file(path, json.dumps(known).encode())
    return known[key]


def _run_name(run_dir: Path) -> str:
    return "-".join(run_dir.absolute().parts[-2:])


def _as_table(settings: Mapping[str, Any]) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
    return f"| setting | value |\n| --- | --- |\n{rows}"


def _how_to_install(package: str) -> str:
    return f"trackers names {package}, which is not installed: pip install {package}, or drop it"
