"""Claim: the modern recipe reaches the reference's bits per byte with far fewer tokens.

Trains the reference (AdamW, the published architecture) and the modern recipe at several sizes on
real French. Learning rates are tuned on the validation split, with equally many tries for each
recipe. Reported figures come from the test split, over several seeds. At the smallest size, each
part is also added alone to the reference, and left out of the modern recipe; a part that the modern
recipe lacks is added to it.

`run` trains the missing runs, and saves each in benchmarks/results/recipes.json; it can be stopped
at any time. `report` prints the tables and draws resources/recipes.png.

    python benchmarks/recipes.py run --sizes small --jobs 2
    python benchmarks/recipes.py report
"""

import argparse
import dataclasses
import json
import math
import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

import torch  # noqa: E402

from benchmarks.recipes_report import MUON, around, best_rate, report  # noqa: E402
from benchmarks.texts import FRENCH_FOLDERS  # noqa: E402
from dimgpt.config import DataConfig, Preset  # noqa: E402
from dimgpt.model.transformer import Transformer  # noqa: E402
from dimgpt.pipeline.data import prepare_files  # noqa: E402
from dimgpt.pipeline.evaluation import HeldOut, evaluate_documents  # noqa: E402
from dimgpt.pipeline.training import build_trainer, match_model  # noqa: E402
from dimgpt.pipeline.vocabulary import prepare_vocabulary  # noqa: E402
from dimgpt.presets import PRESETS  # noqa: E402
from dimgpt.presets.modern import MODERN, PARTS, with_parts  # noqa: E402
from dimgpt.runtime import choose_runtime  # noqa: E402
from dimgpt.settings import override  # noqa: E402
from dimgpt.training.journal import read_history  # noqa: E402
from dimgpt.workspace import Workspace  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "recipes.json"
SCRATCH = ROOT / "data" / "recipes"
TOKENS_PER_STEP = 16 * 256
SIZES: dict[str, dict[str, int]] = {
    "small": {"embedding_dim": 96, "num_heads": 4, "ffn_dim": 256, "max_steps": 250},
    "medium": {"embedding_dim": 128, "num_heads": 4, "ffn_dim": 342, "max_steps": 500},
    "large": {"embedding_dim": 192, "num_heads": 6, "ffn_dim": 512, "max_steps": 800},
}
SMALLER: dict[str, dict[str, int]] = {
    "tiny": {"embedding_dim": 48, "num_heads": 4, "ffn_dim": 128, "max_steps": 250},
    "mini": {"embedding_dim": 72, "num_heads": 4, "ffn_dim": 192, "max_steps": 250},
}
"""Sizes that are not reported; `sizing.py` fits its curve to them as well."""
SEEDS = (0, 1, 2)
SHARES = (0.4, 0.55)
"""Of the steps, with which the modern recipe is trained as well."""
RATES = {False: (3e-3, 6e-3, 1.2e-2), True: (5e-3, 0.01, 0.02)}
"""The rates that are tried, without Muon (of AdamW) and with it (of Muon)."""
RECIPES: dict[str, tuple[str, ...]] = {"reference": (), "modern": MODERN}
EXPERTS = "8 experts, 2 a token"
"""Beside what `modern` has, at its rate; an expert is half as wide, so a token costs as much."""
Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What is trained; equal ones are trained once."""

    size: str
    parts: tuple[str, ...]
    rate: float
    seed: int = 0
    share: float = 1.0
    """Of the steps of its size."""

    @property
    def key(self) -> str:
        """All of it, as a name."""
        parts = " + ".join(self.parts) or "reference"
        return f"{self.size}: {parts}; rate {self.rate:g}, seed {self.seed}, share {self.share:g}"


def preset_of(run: Run, *, validations: int = 10) -> Preset:
    """Return the settings of a run: those of `french-5m`, a size, and the parts."""
    preset, shape = PRESETS["french-5m"], {**(SIZES | SMALLER)[run.size], "num_kv_heads": 2}
    steps = round(shape.pop("max_steps") * run.share)
    training = {
        "batch_size": 16,
        "learning_rate": run.rate,
        "min_learning_rate": run.rate / 10,
        "warmup_steps": steps // 16,
        "decay_steps": steps - steps // 16,
        "max_steps": steps,
        "seed": run.seed,
        "validation_interval": steps // validations,
        "validation_batches": 12,
        "checkpoint_interval": steps,
        "sample_interval": 10 * steps,
    }
    if MUON in run.parts:
        training |= {"learning_rate": 3e-3, "min_learning_rate": 3e-4}
        training |= {"optimizer": "muon", "muon_warmup_steps": steps // 5}
    plain = override(
        preset,
        name="recipes",
        model=override(preset.model, **shape),
        data=_data(preset),
        pretraining=override(preset.pretraining, **training),
        finetuning=override(preset.finetuning, optimizer=training.get("optimizer")),
    )
    changed = with_parts(plain, (part for part in run.parts if part != EXPERTS))
    experts = {"num_experts": 8, "experts_per_token": 2, "ffn_dim": changed.model.ffn_dim // 2}
    return override(
        changed,
        model=override(changed.model, **experts) if EXPERTS in run.parts else changed.model,
        pretraining=override(
            changed.pretraining, muon_learning_rate=run.rate if MUON in run.parts else None
        ),
    )


def train(run: Run, threads: int, *, validations: int = 10) -> Result:
    """Train a run from its beginning, and measure it on the test split."""
    torch.set_num_threads(threads)
    models = SCRATCH / "models" / run.key.replace("/", "-")
    shutil.rmtree(models, ignore_errors=True)
    preset = preset_of(run, validations=validations)
    workspace = Workspace(preset=preset, data_root=SCRATCH, models_root=models)
    workspace = match_model(workspace, "pretraining")
    runtime = choose_runtime()
    trainer = build_trainer(workspace, "pretraining", runtime=runtime)
    start = time.process_time()
    trainer.fit()
    seconds = time.process_time() - start
    history = read_history(workspace.run_dir("pretraining") / "history.jsonl")
    shutil.rmtree(models)
    return {
        **dataclasses.asdict(run),
        "precision": runtime.precision,
        "parameters": trainer.model.num_parameters,
        "tokens": workspace.preset.pretraining.max_steps * TOKENS_PER_STEP,
        "cpu_seconds": round(seconds, 1),
        "validation": [
            (row["step"] * TOKENS_PER_STEP, round(row["loss"], 4))
            for row in history
            if row["kind"] == "validation"
        ],
        "bits_per_byte": bits_per_byte(workspace, trainer.model, "test"),
    }


def bits_per_byte(workspace: Workspace, model: Transformer, split: HeldOut) -> float:
    """Return what a model needs for a byte of all documents of a split."""
    runtime = choose_runtime()
    rows = evaluate_documents(workspace, model, runtime=runtime, split=split)
    bits = [row["loss"] * row["tokens"] / math.log(2) for row in rows]
    size = sum(part / row["bits_per_byte"] for part, row in zip(bits, rows, strict=True))
    return round(sum(bits) / size, 4)


def planned(results: dict[str, Result], size: str) -> Iterator[Run]:
    """Yield the runs of a size that can be chosen by now: of each recipe its tries, then seeds."""
    for name, parts in RECIPES.items():
        yield from tries(size, parts)
        if rate := tuned(results, size, parts):
            for share in (1.0, *SHARES) if name == "modern" else (1.0,):
                for seed in SEEDS:
                    yield Run(size=size, parts=parts, rate=rate, seed=seed, share=share)


def tries(size: str, parts: tuple[str, ...]) -> list[Run]:
    """Return the runs by which the rate of a recipe is chosen."""
    return [Run(size=size, parts=parts, rate=rate) for rate in RATES[MUON in parts]]


def tuned(results: dict[str, Result], size: str, parts: tuple[str, ...]) -> float | None:
    """Return the best rate of a recipe, or None while some of its tries are missing."""
    found = [results.get(run.key) for run in tries(size, parts)]
    return best_rate(result for result in found if result) if all(found) else None


def planned_parts(results: dict[str, Result], size: str) -> Iterator[Run]:
    """Yield the runs with experts, with one part alone, and with one part left out."""
    best = {parts: rate for parts in RECIPES.values() if (rate := tuned(results, size, parts))}
    if len(best) < len(RECIPES):
        return
    rates = {False: best[()], True: best[MODERN]}
    for seed in SEEDS:
        yield Run(size=size, parts=(*MODERN, EXPERTS), rate=best[MODERN], seed=seed)
        for part in PARTS:
            for parts in around(part, MODERN)[1:]:
                yield Run(size=size, parts=parts, rate=rates[MUON in parts], seed=seed)


def run_all(
    plan: Callable[[dict[str, Result]], Iterable[Any]],
    train: Callable[[Any, int], Result],
    path: Path,
    *,
    jobs: int,
) -> None:
    """Train the missing runs, several at a time, one thread each.

    Args:
        plan: Returns the runs that can be chosen already, given the finished results by their keys.
        train: Trains a run with a number of threads.
        path: File of the results; a result is added as soon as its run has ended.
        jobs: Number of runs at a time.
    """
    results = load_results(path)
    context = multiprocessing.get_context("spawn")
    running: dict[Future[Result], Any] = {}
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        while True:
            for run in plan(results):
                is_free = len(running) < jobs and run not in running.values()
                if is_free and run.key not in results:
                    running[pool.submit(train, run, 1)] = run
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run = running.pop(future)
                results[run.key] = result = {"key": run.key, **future.result()}
                path.write_text(json.dumps(list(results.values()), indent=0) + "\n")
                print(f"{run.key}: {result['bits_per_byte']} bits a byte", flush=True)


def load_results(path: Path) -> dict[str, Result]:
    """Return the runs that were trained, by their keys."""
    found = json.loads(path.read_text()) if path.is_file() else []
    return {result["key"]: result | {"parts": tuple(result.get("parts", ()))} for result in found}


def prepare(preset: Preset, data_name: str) -> None:
    """Prepare the texts of a preset once, with the vocabulary of the first that was prepared."""
    vocabulary = SCRATCH / "recipes" / "vocab.txt"
    workspace = Workspace(preset=preset, data_root=SCRATCH, data_name=data_name)
    if vocabulary.is_file() and not workspace.vocabulary_path.is_file():
        workspace.vocabulary_path.parent.mkdir(parents=True)
        shutil.copy(vocabulary, workspace.vocabulary_path)
    prepare_files(workspace, prepare_vocabulary(workspace))


def _data(preset: Preset) -> DataConfig:
    """Return the data of `french-5m`, without its conversations, with a test split."""
    folder = next(path for path in FRENCH_FOLDERS if path.is_dir())
    sources = tuple(
        override(source, path=str(folder / Path(source.path).name))
        for source in preset.data.sources
    )
    changes = {"vocab_size": 4_000, "validation_ratio": 0.02, "test_ratio": 0.02}
    return override(preset.data, sources=sources, conversations=(), **changes)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["run", "report"])
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    arguments = parser.parse_args()
    if arguments.action == "run":
        prepare(preset_of(Run(size=arguments.sizes[0], parts=(), rate=1e-3)), "recipes")

        def plan(results: dict[str, Result]) -> Iterator[Run]:
            for size in arguments.sizes:
                yield from planned(results, size)
            if (smallest := next(iter(SIZES))) in arguments.sizes:
                yield from planned_parts(results, smallest)

        run_all(plan, train, RESULTS, jobs=arguments.jobs)
    else:
        picture = ROOT / "resources" / "recipes.png"
        results = load_results(RESULTS).values()
        chosen = [result for result in results if result["size"] in arguments.sizes]
        experts = {"experts": (*RECIPES["modern"], EXPERTS)}
        print(report(chosen, RECIPES | experts, PARTS, picture))


if __name__ == "__main__":
    main()
