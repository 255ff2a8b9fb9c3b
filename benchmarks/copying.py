"""Claim: with Muon, a model learns to copy from a text at the same step whatever the seed.

Pretrains the demo with Muon, its own optimizer, and with AdamW at the same rate. Every 100 steps,
the losses of names and nouns in held-out scenes are measured, at their first occurrence and at
repetitions (`dimgpt/demo/copying.py`). Every run is saved in benchmarks/results/copying.json, and
`report` draws resources/copying.png.

    python benchmarks/copying.py run --jobs 2
    python benchmarks/copying.py report
"""

import argparse
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

import torch  # noqa: E402

from benchmarks.finetuning import ADAPTERS, DEMO, SCRATCH, SEEDS  # noqa: E402
from benchmarks.recipes import Result, load_results, run_all  # noqa: E402
from dimgpt.pipeline.data import prepare_files  # noqa: E402
from dimgpt.pipeline.training import build_trainer, match_model  # noqa: E402
from dimgpt.pipeline.vocabulary import prepare_vocabulary  # noqa: E402
from dimgpt.runtime import choose_runtime  # noqa: E402
from dimgpt.settings import override  # noqa: E402
from dimgpt.training.journal import read_history  # noqa: E402
from dimgpt.workspace import Workspace  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "copying.json"
OPTIMIZERS: dict[str, dict[str, Any]] = {"Muon": {}, "AdamW": ADAPTERS}
WORDS = {"repeated_name": "names", "repeated_noun": "nouns"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretraining:
    """What is trained; equal ones are trained once."""

    optimizer: str
    seed: int

    @property
    def key(self) -> str:
        """Both, as a name."""
        return f"{self.optimizer}; seed {self.seed}"


def workspace_of(run: Pretraining) -> Workspace:
    """Return the places and the settings of a run."""
    config = override(DEMO.pretraining, seed=run.seed, **OPTIMIZERS[run.optimizer])
    preset, models = override(DEMO, pretraining=config), SCRATCH / "copying" / run.key
    return Workspace(preset=preset, data_root=SCRATCH, models_root=models)


def train(run: Pretraining, threads: int) -> Result:
    """Pretrain, and return what was measured on the way."""
    torch.set_num_threads(threads)
    workspace, runtime = match_model(workspace_of(run), "pretraining"), choose_runtime()
    shutil.rmtree(workspace.models_root, ignore_errors=True)
    trainer = build_trainer(workspace, "pretraining", runtime=runtime)
    trainer.fit()
    history = read_history(trainer.journal.path)
    measured = [record for record in history if record["kind"] == "validation"]
    names = ("step", "loss", "scores")
    return {
        **asdict(run),
        "precision": runtime.precision,
        "bits_per_byte": measured[-1]["bits_per_byte"],
        "measured": [{name: record[name] for name in names} for record in measured],
    }


def report(results: Iterable[Result], picture: Path) -> str:
    """Return a table in Markdown, the mean of the seeds and their range, and draw the curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    rows, panels = [], figure.subplots(1, 2, sharey=True)
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result["optimizer"], []).append(result)
    steps = [record["step"] for record in next(iter(groups.values()))[0]["measured"]]
    for panel, (word, title) in zip(panels, WORDS.items(), strict=True):
        for optimizer, runs in groups.items():
            curves = [[each["scores"][word] for each in run["measured"]] for run in runs]
            columns = list(zip(*curves, strict=True))
            means = [sum(column) / len(column) for column in columns]
            lowest, highest = [min(column) for column in columns], [max(c) for c in columns]
            panel.plot(steps, means, label=optimizer)
            panel.fill_between(steps, lowest, highest, alpha=0.2)
            cells = zip(means, lowest, highest, strict=True)
            texts = " | ".join(f"{mean:.2f} ({low:.2f} to {up:.2f})" for mean, low, up in cells)
            rows.append(f"| {title} | {optimizer} | {texts} |")
        panel.set(title=f"repeated {title}", xlabel="step")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("loss, nats a word")
    panels[0].legend()
    figure.savefig(picture, dpi=110)
    head = ["words", "optimizer", *(f"step {step}" for step in steps)]
    return "\n".join([f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *rows])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["run", "report"])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    arguments = parser.parse_args()
    runs = [Pretraining(optimizer=name, seed=seed) for name in OPTIMIZERS for seed in SEEDS]
    if arguments.action == "run":
        prepare_files(workspace_of(runs[0]), prepare_vocabulary(workspace_of(runs[0])))
        run_all(lambda results: runs, train, RESULTS, jobs=arguments.jobs)
    else:
        print(report(load_results(RESULTS).values(), ROOT / "resources" / "copying.png"))


if __name__ == "__main__":
    main()
