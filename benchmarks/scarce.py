"""Claim: with the right settings, a quarter of the text is worth as much as four times of it.

Trains the smallest size of `recipes.py` on a sixtieth of the French text in many passes, with more
weight decay, with dropout, and with averaged weights. The modern recipe does without its untied
output here, which memorises repeated text. The reference is one pass over four times as much text.
Sources have no multipliers. Learning rates are the best ones of `recipes.py`. The number of passes
and the settings are chosen on the validation split, and figures of the test split are reported.
Every run is saved in benchmarks/results/scarce.json.

    python benchmarks/scarce.py run --jobs 2
    python benchmarks/scarce.py report
"""

import argparse
import shutil
import statistics
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

import torch  # noqa: E402
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn  # noqa: E402

from benchmarks import recipes  # noqa: E402
from benchmarks.recipes import (  # noqa: E402
    MODERN,
    SCRATCH,
    SEEDS,
    TOKENS_PER_STEP,
    Result,
    Run,
    bits_per_byte,
)
from benchmarks.recipes_report import best_rate  # noqa: E402
from dimgpt.config import Preset  # noqa: E402
from dimgpt.pipeline.training import build_trainer, match_model  # noqa: E402
from dimgpt.runtime import choose_runtime  # noqa: E402
from dimgpt.settings import override  # noqa: E402
from dimgpt.workspace import Workspace  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "scarce.json"
SIZE, VALIDATION_RATIO = "small", 0.02
TIED = "modern, tied"
RECIPES = {"reference": (), TIED: tuple(part for part in MODERN if part != "untied output")}
SCARCE, MORE = "a quarter", "four times that"
TEXTS = {SCARCE: 1 / 60, MORE: 4 / 60}
"""Share of the French text that is trained on: about 0.26 and 1.02 million tokens."""
PASSES_OF_ONE = 4
"""Passes over a quarter of the text in the steps of `SIZE`."""
SETTINGS: dict[str, dict[str, float]] = {
    "as it is": {},
    "dropout": {"dropout": 0.1},
    "decay 0.4, dropout": {"weight_decay": 0.4, "dropout": 0.1},
    "decay 1.2, dropout": {"weight_decay": 1.2, "dropout": 0.1},
}
"""Changes of the training; Muon's weights get the same decay."""
TRIES = {
    ("reference", 4): ("as it is",),
    ("reference", 8): ("as it is", "decay 0.4, dropout", "decay 1.2, dropout"),
    (TIED, 4): ("as it is",),
    (TIED, 8): ("as it is", "dropout", "decay 0.4, dropout"),
}
"""Recipe and passes -> settings that are tried with the first seed."""
AVERAGE_DECAY = 0.98
"""In a step, of the moving average of the weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScarceRun:
    """What is trained; equal ones are trained once."""

    recipe: str
    settings: str
    passes: int
    rate: float
    seed: int = 0
    text: str = SCARCE

    @property
    def key(self) -> str:
        """All of it, as a name."""
        return ", ".join(f"{value}" for value in astuple(self))

    @property
    def data_name(self) -> str:
        """Folder of its token files."""
        return f"scarce-{self.text.replace(' ', '-')}"


def preset_of(run: ScarceRun) -> Preset:
    """Return the settings of a run."""
    share = run.passes * TEXTS[run.text] / (PASSES_OF_ONE * TEXTS[SCARCE])
    parts = RECIPES[run.recipe]
    preset = recipes.preset_of(
        Run(size=SIZE, parts=parts, rate=run.rate, seed=run.seed, share=share)
    )
    changes, training = dict(SETTINGS[run.settings]), preset.pretraining
    if training.optimizer == "muon" and "weight_decay" in changes:
        changes["muon_weight_decay"] = changes["weight_decay"]
    sources = tuple(override(source, multiplier=1.0) for source in preset.data.sources)
    ratios = {
        "validation_ratio": VALIDATION_RATIO,
        "test_ratio": 1 - VALIDATION_RATIO - TEXTS[run.text],
    }
    return override(
        preset,
        name="scarce",
        data=override(preset.data, sources=sources, **ratios),
        pretraining=override(training, **changes),
    )


def train(run: ScarceRun, threads: int) -> Result:
    """Train a run from its beginning, and measure it, and the averages of its weights."""
    torch.set_num_threads(threads)
    models = SCRATCH / "models" / run.key
    shutil.rmtree(models, ignore_errors=True)
    workspace = Workspace(
        preset=preset_of(run), data_root=SCRATCH, data_name=run.data_name, models_root=models
    )
    workspace = match_model(workspace, "pretraining")
    runtime = choose_runtime()
    trainer = build_trainer(workspace, "pretraining", runtime=runtime)
    average = AveragedModel(trainer.model, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE_DECAY))
    trainer.optimizer.register_step_post_hook(lambda *_: average.update_parameters(trainer.model))
    trainer.fit()
    shutil.rmtree(models)
    whole = replace(workspace, data_name="recipes")
    measured = {
        f"{name}{split}": bits_per_byte(whole, model, split)
        for name, model in (("", trainer.model), ("average_", average.module))
        for split in ("validation", "test")
    }
    return {
        **asdict(run),
        "precision": runtime.precision,
        "tokens": workspace.preset.pretraining.max_steps * TOKENS_PER_STEP,
        "training_loss": round(trainer.summary().loss, 4),
        **measured,
        "bits_per_byte": measured["test"],
    }


def planned(results: dict[str, Result]) -> Iterator[ScarceRun]:
    """Yield the runs that can be chosen by now: the tries, then other seeds of the best ones."""
    rates = {"reference": best_rate(tries_of(())), TIED: best_rate(tries_of(MODERN))}
    tries = [
        ScarceRun(recipe=recipe, settings=settings, passes=passes, rate=rates[recipe])
        for (recipe, passes), names in TRIES.items()
        for settings in names
    ]
    yield from tries
    if not all(run.key in results for run in tries):
        return
    chosen = [replace(tries[0], passes=1, text=MORE), tries[0]]
    for recipe in rates:
        mine = [run for run in tries if run.recipe == recipe]
        chosen.append(min(mine, key=lambda run: results[run.key]["validation"]))
    for seed in SEEDS:
        yield from (replace(run, seed=seed) for run in chosen)


def tries_of(parts: tuple[str, ...]) -> list[Result]:
    """Return the runs by which `recipes.py` chose the rate of a recipe."""
    runs = recipes.load_results(recipes.RESULTS).values()
    wanted = (SIZE, parts, 0, 1.0)
    names = ("size", "parts", "seed", "share")
    return [run for run in runs if tuple(run[name] for name in names) == wanted]


def report(results: Iterable[Result]) -> str:
    """Return a table in Markdown: each setting with its mean, lowest and highest seed."""
    rows = [
        "| text | recipe | passes | settings | seeds | training loss | bits per byte, validation | "
        "test | test, averaged weights |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for run in results:
        names = ("text", "recipe", "passes", "settings")
        groups.setdefault(tuple(run[name] for name in names), []).append(run)
    for group, runs in groups.items():
        losses = [run["training_loss"] for run in runs]
        cells = [*map(str, group), str(len(runs)), f"{statistics.mean(losses):.2f}"]
        for name in ("validation", "test", "average_test"):
            values = [run[name] for run in runs]
            cells.append(f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["run", "report"])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    arguments = parser.parse_args()
    if arguments.action == "run":
        recipes.prepare(recipes.preset_of(Run(size=SIZE, parts=(), rate=1.0)), "recipes")
        for text in (SCARCE, MORE):
            run = ScarceRun(recipe="reference", settings="as it is", passes=1, rate=1.0, text=text)
            recipes.prepare(preset_of(run), run.data_name)
        recipes.run_all(planned, train, RESULTS, jobs=arguments.jobs)
    else:
        print(report(recipes.load_results(RESULTS).values()))


if __name__ == "__main__":
    main()
