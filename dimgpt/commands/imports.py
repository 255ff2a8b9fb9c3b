"""The verb that takes over models of other systems."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from dimgpt.display import Table
from dimgpt.info import describe_weights
from dimgpt.pipeline import import_model
from dimgpt.presets import Preset


@dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """Make a model folder of weights from DimensionGPT, lilLM, toyGPT, Llama or Mistral."""

    path: tyro.conf.Positional[Path]
    """A .pt or .ckpt file of the first three, or a Hugging Face folder of the last two."""
    name: str | None = None
    """Name of the folder in models/; the file's if not given."""
    tokenizer: Path | None = None
    """A tokenizer.json or vocab.txt; looked for beside the weights if not given."""
    use_tokenizer: bool = True
    """Without a tokenizer, the folder gives logits but no text."""
    context_length: int | None = None
    """Shorten the context of a Llama or Mistral to so many tokens."""
    models_root: Path = Path("models")
    """Gets the folder."""

    @classmethod
    def defaults(cls, preset: Preset) -> "Import":
        """Return the defaults, which no preset changes."""
        return cls(path=tyro.MISSING)

    def run(self) -> None:
        """Write the folder, and show what was read back from it."""
        folder = import_model(
            self.path,
            models_root=self.models_root,
            name=self.name,
            tokenizer_path=self.tokenizer,
            context_length=self.context_length,
            use_tokenizer=self.use_tokenizer,
        )
        print(Table.of(describe_weights(folder), title=str(folder)))
