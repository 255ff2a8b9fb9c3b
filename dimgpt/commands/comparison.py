"""The verb `compare`."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dimgpt.files import replace_file
from dimgpt.pipeline.comparison import compare_runs


@dataclass(frozen=True, kw_only=True, slots=True)
class Compare:
    """Flags of `compare`."""

    runs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN")] = ()
    """Folders of runs, such as models/demo-runs/finetuning, or names of models, which stand for
    their pretraining."""
    models_root: Path = Path("models")
    """Folder with the models and their runs."""
    output: Path = Path("compare.png")
    """File for the picture."""
    csv: Path | None = None
    """File for the curves as CSV; not written if not given."""

    def run(self) -> None:
        """Write the picture, and print the tables."""
        comparison, picture = compare_runs(self.runs, models_root=self.models_root), io.BytesIO()
        comparison.plot().savefig(picture, format="png", dpi=130)
        replace_file(self.output, picture.getvalue())
        if self.csv is not None:
            replace_file(self.csv, comparison.to_csv().encode())
        if comparison.settings.rows:
            print(comparison.settings)
        print(comparison.results)
        print("written:", *filter(None, (self.output, self.csv)))
