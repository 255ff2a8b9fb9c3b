"""The verbs for finished models, `info`, and `demo`."""

import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tqdm import tqdm

from dimgpt.config import ExportConfig, ExportDtype, ExportTarget, SamplingConfig
from dimgpt.display.progress import progress_stream
from dimgpt.display.tables import Table
from dimgpt.generation.generator import TextGenerator
from dimgpt.info import (
    PEAK_SHARE,
    compare_cards,
    compare_sizes,
    describe_preset,
    describe_weights,
    look_around,
)
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.models import export, import_model, open_model
from dimgpt.presets import get_preset
from dimgpt.runtime import choose_runtime, peak_flops
from dimgpt.settings import override
from dimgpt.sizing import propose
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.download import download_model
from dimgpt.workspace import Stage, Workspace

_NOTEBOOKS = (
    ("create_data", ""),
    ("training", "pretraining"),
    ("training", "finetuning"),
    ("testing", ""),
)
"""The notebooks that `demo` runs, and the stage for each, if it takes one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """Flags that `generate`, `chat` and `serve` share."""

    preset: str
    """Preset that gives the model and the sampling settings."""
    model: Path | None = None
    """Model folder, or weights of another system; the preset's model if not given."""
    tokenizer: Path | None = None
    """A tokenizer.json or vocab.txt, for weights without one in their folder."""
    use_int8: bool = False
    """Round the weights to 8 bits: large models then generate faster on a CPU."""
    sampling: SamplingConfig

    def open(self, stage: Stage) -> tuple[Transformer, Tokenizer]:
        """Open `--model`, or the preset's model of a stage, with its tokenizer."""
        path, runtime = self.path(stage), choose_runtime()
        return open_model(
            path, runtime=runtime, tokenizer_path=self.tokenizer, use_int8=self.use_int8
        )

    def path(self, stage: Stage) -> Path:
        """Return the path of `--model`, or of the preset's model of a stage."""
        return self.model or Workspace(preset=get_preset(self.preset)).model_dir(stage)


def print_stream(pieces: Iterable[str]) -> None:
    """Print the pieces of a text as they come, then a newline."""
    for piece in pieces:
        print(piece, end="", flush=True)
    print()


@dataclass(frozen=True, kw_only=True, slots=True)
class Generate(Writer):
    """Flags of `generate`."""

    prompt: str = ""
    """Text to complete."""

    def run(self) -> None:
        """Print the prompt, then its continuation as it is generated."""
        writer = TextGenerator(*self.open("pretraining"))
        print(self.prompt, end="", flush=True)
        print_stream(writer.stream(self.prompt, self.sampling))


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """Flags of `export`."""

    model: tyro.conf.Positional[Path]
    """Model folder, or weights of another system with their tokenizer."""
    to: ExportTarget
    """Program that will open the export; safetensors is a plain copy for dimgpt."""
    output: Path | None = None
    """Folder to create; MODEL-TARGET-DTYPE next to the model if not given."""
    tokenizer: Path | None = None
    """A tokenizer.json or vocab.txt, for weights without one in their folder."""
    dtype: ExportDtype = "f32"
    """Precision of the weights; q8_0 is for gguf only."""

    def run(self) -> None:
        """Export, and list the files."""
        config = ExportConfig(target=self.to, dtype=self.dtype)
        folder = export(self.model, config, output=self.output, tokenizer_path=self.tokenizer)
        print(folder, *sorted(f"  {path.name}" for path in folder.iterdir()), sep="\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """Flags of `import`."""

    path: tyro.conf.Positional[Path]
    """A .pt or .ckpt file of DimensionGPT, lilLM or toyGPT, or a Hugging Face folder."""
    name: str | None = None
    """Name of the new folder in models/; the file's name if not given."""
    tokenizer: Path | None = None
    """A tokenizer.json or vocab.txt; searched in the folder of the weights if not given."""
    use_tokenizer: bool = True
    """If false, import no tokenizer: the model then gives logits but no text."""
    num_heads: int | None = None
    """Attention heads, for a file that does not store them; the published number if not given."""
    num_kv_heads: int | None = None
    """Heads for keys and values, for a file that does not store them."""
    window_size: int | None = None
    """Attention window of a DimensionGPT in tokens; equal to the context for no window."""
    context_length: int | None = None
    """Context in tokens, for a file that does not store it, or to shorten a Hugging Face model."""
    models_root: Path = Path("models")
    """Folder for the new folder."""

    def run(self) -> None:
        """Write the folder, then read it back and describe it."""
        names = ("num_heads", "num_kv_heads", "window_size", "context_length")
        folder = import_model(
            self.path,
            models_root=self.models_root,
            name=self.name,
            tokenizer_path=self.tokenizer,
            sizes={name: size for name in names if (size := getattr(self, name)) is not None},
            use_tokenizer=self.use_tokenizer,
        )
        print(Table.of(describe_weights(folder), title=str(folder)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Info:
    """Flags of `info`."""

    preset: str = "demo"
    """Preset to describe."""
    model: Path | None = None
    """Model folder, or weights of another system, to describe instead."""
    sizes: bool = False
    """Compare all presets instead: size, memory, speed on this machine and on known GPUs."""
    budget: str | None = None
    """Propose a run for this machine that takes a given time (90m, 24h, 2d); measures the speed."""

    def run(self) -> None:
        """Print the tables."""
        runtime = choose_runtime()
        if self.budget is not None:
            print(propose(self.budget, runtime))
            return
        if self.sizes:
            flops, share = peak_flops(runtime), f"at {PEAK_SHARE:.0%} of"
            here = f"Here, {share} a peak of {flops:.3g} FLOP/s"
            print(Table.of(compare_sizes(flops), title=here))
            print(Table.of(compare_cards(), title=f"Pretraining, {share} a GPU's peak"))
            return
        print(Table.of(look_around(runtime), title="This machine"))
        if self.model is not None:
            print(Table.of(describe_weights(self.model), title=str(self.model)))
        else:
            print(Table.of(describe_preset(get_preset(self.preset)), title=self.preset))


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """Flags of `download`."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """lillm-39m, lillm-300m, or owner/name on the hub."""
    models_root: Path = Path("models")
    """Folder for the model's folder."""
    revision: str | None = None
    """Branch, tag or commit; the newest if not given."""

    def run(self) -> None:
        """Download, and print the path of the folder."""
        # With the delay, an error that comes at once shows no bar.
        stream = progress_stream()
        with tqdm(desc=self.name, unit="B", unit_scale=True, delay=0.1, file=stream) as bar:

            def move(num_bytes: int, total: int) -> None:
                bar.total = total
                bar.update(num_bytes - bar.n)

            print(
                download_model(self.name, self.models_root, revision=self.revision, progress=move)
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Demo:
    """Flags of `demo`."""

    seed: int | None = None
    """Seed of both trainings; the models are saved in models/demo-seed-N. If not given, the seed
    is the preset's, and they are saved in models/."""
    output_dir: Path | None = None
    """Folder for the executed notebooks; demo-runs/notebooks next to the models if not given."""

    def run(self) -> None:
        """Execute the notebooks of the working directory, and print the paths of the results."""
        override(get_preset("demo").pretraining, seed=self.seed)  # fails at once if it is wrong
        # A run with another seed needs its own folder: a finished run would not train again.
        models = Path("models") if self.seed is None else Path(f"models/demo-seed-{self.seed}")
        output, notebooks = self.output_dir or models / "demo-runs" / "notebooks", []
        for number, (name, stage) in enumerate(_NOTEBOOKS, start=1):
            source = Path(f"{name}.ipynb")
            if not source.exists():
                raise FileNotFoundError(f"{source} is not here: run from the repository's folder")
            print(f"\n━━ {number} of {len(_NOTEBOOKS)}: {source} {stage}", flush=True)
            label = "-".join(filter(None, (str(number), name, stage)))
            notebooks.append(output / f"{label}.ipynb")
            parameters: dict[str, Any] = {"STAGE": stage, "SEED": self.seed} if stage else {}
            if name != "create_data":
                parameters["MODELS_ROOT"] = models.as_posix()
            _execute(source, notebooks[-1], parameters)
        print("\nThe executed notebooks:", *notebooks, sep="\n  ")
        print("The curves:", *sorted(models.glob("demo-runs/*/curves.png")), sep="\n  ")
        print("The models:", models / "demo", models / "demo-chat", sep="\n  ")


def _execute(source: Path, target: Path, parameters: dict[str, Any]) -> None:
    """Run a notebook with the demo preset, and print the output of its cells as it comes.

    The tables of cells with the tag `report` are printed at the end.
    """
    import papermill
    from traitlets.config import Config

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dimgpt-") as sockets:
        # Kernels listen on Unix sockets, not on the network; Windows has no Unix sockets.
        unix = {"transport": "ipc", "ip": str(Path(sockets) / "kernel")}
        book = papermill.execute_notebook(
            source,
            target,
            parameters={"PRESET": "demo", **parameters},
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=progress_stream(),
            config=Config({"KernelManager": {} if os.name == "nt" else unix}),
            coalesce_streams=True,  # of a progress bar, keep the last line only
        )
    for cell in book.cells:
        if "report" in cell.metadata.get("tags", []):
            for output in cell.outputs:
                print("\n" + output.get("data", {}).get("text/plain", ""))
