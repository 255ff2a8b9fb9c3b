"""The verb that fetches models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from dimgpt.presets import Preset
from dimgpt.weights.download import download_model


@dataclass(frozen=True, kw_only=True, slots=True)
class Download:
    """Fetch a model from the Hugging Face hub; run again to go on."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """lillm-39m, lillm-300m, or owner/name on the hub."""
    models_root: Path = Path("models")
    """Gets the model's folder."""
    revision: str | None = None
    """Branch, tag or commit; the newest if not given."""

    @classmethod
    def defaults(cls, preset: Preset) -> "Download":
        """Return the defaults, which no preset changes."""
        return cls(name=tyro.MISSING)

    def run(self) -> None:
        """Fetch, and say where the files are."""
        # The delay: what is refused at once needs no bar.
        with tqdm(desc=self.name, unit="B", unit_scale=True, delay=0.1) as bar:

            def move(num_bytes: int, total: int) -> None:
                bar.total = total
                bar.update(num_bytes - bar.n)

            folder = download_model(
                self.name, self.models_root, revision=self.revision, progress=move
            )
        print(folder)
