"""Claim: some settings that the field found for fine-tuning are better than those of the demo.

Pretrains the demo, and fine-tunes it once with its own settings and once with each change. Reports
the validation loss and the exact match on held-out questions. Every run is saved in
benchmarks/results/finetuning.json.

    python benchmarks/finetuning.py run --jobs 2
    python benchmarks/finetuning.py report
"""

import argparse
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

import torch  # noqa: E402

from benchmarks.recipes import Result, load_results, run_all  # noqa: E402
from dimgpt.config import LoraConfig  # noqa: E402
from dimgpt.demo.score import score_models  # noqa: E402
from dimgpt.pipeline.data import prepare_files  # noqa: E402
from dimgpt.pipeline.training import build_trainer, match_model, save_trained  # noqa: E402
from dimgpt.pipeline.vocabulary import prepare_vocabulary  # noqa: E402
from dimgpt.presets import PRESETS  # noqa: E402
from dimgpt.runtime import choose_runtime  # noqa: E402
from dimgpt.settings import override  # noqa: E402
from dimgpt.training.checkpoint import CheckpointStore  # noqa: E402
from dimgpt.training.optimizer import restore_optimizer  # noqa: E402
from dimgpt.training.trainer import Trainer  # noqa: E402
from dimgpt.workspace import Workspace, load_vocabulary  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "finetuning.json"
SCRATCH = ROOT / "data" / "finetuning"
DEMO = PRESETS["demo"]
SEEDS = (0, 1, 2)
STATE = "optimizer state of pretraining"
LOWER = {
    "learning_rate": 0.8 * DEMO.finetuning.learning_rate,
    "muon_learning_rate": 0.8 * DEMO.finetuning.muon_learning_rate,
}
HALF = {
    "schedule": "wsd",
    "cooldown": "linear",
    "decay_steps": DEMO.finetuning.max_steps // 2,
}
ADAPTERS = {"optimizer": "adamw"} | {
    name: field.default
    for name, field in type(DEMO.finetuning).__dataclass_fields__.items()
    if name.startswith("muon_")
}
WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    STATE: {},
    "rates of four fifths": LOWER,
    "constant, then a falling second half": HALF,
    f"all three, with the {STATE}": LOWER | HALF,
    "concatenated rows": {"packing": "concatenate"},
    "LoRA of rank 8": {"rank": 8, **ADAPTERS},
    "LoRA of rank 8, three times the rate": {"rank": 8, **ADAPTERS, "learning_rate": 0.01},
    "LoRA of rank 32": {"rank": 32, **ADAPTERS},
    "LoRA of rank 32, three times the rate": {"rank": 32, **ADAPTERS, "learning_rate": 0.01},
    "LoRA of rank 32, ten times the rate": {"rank": 32, **ADAPTERS, "learning_rate": 0.03},
}
"""Changes of the fine-tuning; `rank` is LoRA's, and `packing` how rows are filled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuning:
    """What is trained; equal ones are trained once."""

    way: str
    seed: int

    @property
    def key(self) -> str:
        """Both, as a name."""
        return f"{self.way}; seed {self.seed}"


def workspace_of(run: FineTuning) -> Workspace:
    """Return the places and the settings of a run."""
    changes = dict(WAYS[run.way])
    packing, rank = changes.pop("packing", None), changes.pop("rank", 0)
    preset = override(
        DEMO,
        pretraining=override(DEMO.pretraining, seed=run.seed),
        finetuning=override(DEMO.finetuning, seed=run.seed, **changes),
        lora=LoraConfig(rank=rank),
    )
    models = SCRATCH / f"models-{run.seed}"
    return Workspace(preset=preset, data_root=SCRATCH, models_root=models, packing=packing)


def train(run: FineTuning, threads: int) -> Result:
    """Fine-tune, and measure the result; the first run of a seed also pretrains."""
    torch.set_num_threads(threads)
    workspace, runtime = workspace_of(run), choose_runtime()
    if not workspace.model_dir("pretraining").is_dir():
        pretraining = match_model(workspace, "pretraining")
        trainer = build_trainer(pretraining, "pretraining", runtime=runtime)
        trainer.fit()
        save_trained(pretraining, "pretraining", trainer)
    workspace = match_model(workspace, "finetuning")
    shutil.rmtree(workspace.run_dir("finetuning"), ignore_errors=True)
    trainer = build_trainer(workspace, "finetuning", runtime=runtime)
    if STATE in run.way:
        take_over_state(trainer, workspace.run_dir("pretraining"))
    start = time.process_time()
    trainer.fit()
    seconds = time.process_time() - start
    model, tokenizer = trainer.model.eval(), load_vocabulary(workspace)
    score = score_models(model, model, tokenizer, sampling=DEMO.sampling, num_stories=0)
    return {
        **asdict(run),
        "precision": runtime.precision,
        "cpu_seconds": round(seconds, 1),
        "validation_loss": round(trainer.summary().validation_loss or 0.0, 4),
        "bits_per_byte": round(trainer.summary().bits_per_byte or 0.0, 4),
        "exact_match": round(score.macro_average, 4),
        "lowest_kind": min(kind.accuracy for kind in score.kinds),
    }


def take_over_state(trainer: Trainer, run_dir: Path) -> None:
    """Let a trainer take its first step with the optimizer state at the end of another run."""
    checkpoint = CheckpointStore(run_dir / "checkpoints").load_latest()
    assert checkpoint is not None

    def restore(*_: Any) -> None:
        if not trainer.optimizer.state:
            restore_optimizer(trainer.optimizer, trainer.model, checkpoint.tensors["optimizer"])

    trainer.optimizer.register_step_pre_hook(restore)


def planned(results: dict[str, Result], ways: Iterable[str]) -> Iterator[FineTuning]:
    """Yield the runs, one way of all seeds after the other; a seed begins with its pretraining."""
    first, *others = (FineTuning(way=way, seed=seed) for way in ways for seed in SEEDS)
    yield first
    for run in others:
        if run.way == first.way or FineTuning(way=first.way, seed=run.seed).key in results:
            yield run


def report(results: Iterable[Result]) -> str:
    """Return a table in Markdown: each way with the mean, lowest and highest of its seeds."""
    names = ("validation_loss", "exact_match", "lowest_kind")
    rows = [
        "| fine-tuning | seeds | validation loss | exact match | lowest kind |",
        "| --- | --- | --- | --- | --- |",
    ]
    groups: dict[str, list[Result]] = {}
    for run in results:
        groups.setdefault(run["way"], []).append(run)
    for way, runs in groups.items():
        cells = [way, str(len(runs))]
        for name in names:
            values = [run[name] for run in runs]
            style = ".3f" if name == "validation_loss" else ".1%"
            mean, low, high = sum(values) / len(values), min(values), max(values)
            cells.append(f"{mean:{style}} ({low:{style}} to {high:{style}})")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["run", "report"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    arguments = parser.parse_args()
    if arguments.action == "run":
        workspace = workspace_of(FineTuning(way="as it is", seed=0))
        prepare_files(workspace, prepare_vocabulary(workspace))

        def plan(results: dict[str, Result]) -> Iterator[FineTuning]:
            return planned(results, arguments.ways)

        run_all(plan, train, RESULTS, jobs=arguments.jobs)
    else:
        print(report(load_results(RESULTS).values()))


if __name__ == "__main__":
    main()
