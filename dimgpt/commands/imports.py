"""The verb that takes over models of other systems."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from dimgpt.display.tables import Table
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
    num_heads: int | None = None
    """Heads, for a file that does not say them; the published number if not given."""
    num_kv_heads: int | None = None
    """Heads for keys and values, likewise."""
    window_size: int | None = None
    """Tokens that a DimensionGPT looks back on, likewise; as many as the context is no window."""
    context_length: int | None = None
    """Context in tokens, likewise; of a Llama or Mistral, to shorten it."""
    models_root: Path = Path("models")
    """Gets the folder."""

    @classmethod
    def defaults(cls, preset: Preset) -> "Import":
        """Return the defaults, which no preset changes."""
        return cls(path=tyro.MISSING)

    def run(self) -> None:
        """Write the folder, and show what was read back from it."""
        names = ("num_heads", "num_kv_heads", "window_size", "context_length")
        sizes = {name: getattr(self, name) for name in names}
        folder = import_model(
            self.path,
            models_root=self.models_root,
            name=self.name,
            tokenizer_path=self.tokenizer,
            sizes={name: size for name, size in sizes.items() if size is not None},
            use_tokenizer=self.use_tokenizer,
        )
        print(Table.of(describe_weights(folder), title=str(folder)))
