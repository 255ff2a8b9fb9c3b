"""The verb that takes a model to other programs."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from dimgpt.config import ExportConfig, ExportDtype, ExportTarget
from dimgpt.pipeline import export
from dimgpt.presets import Preset


@dataclass(frozen=True, kw_only=True, slots=True)
class Export:
    """Write a model for transformers, llama.cpp (gguf), or the original DimensionGPT (pt)."""

    model: tyro.conf.Positional[Path]
    """Model folder, or weights of another system with their tokenizer."""
    to: ExportTarget
    """Program that is to open it; safetensors is a plain copy for dimgpt."""
    output: Path | None = None
    """Folder to make; MODEL-TARGET, with the precision, beside the model if not given."""
    tokenizer: Path | None = None
    """A tokenizer.json or vocab.txt, for weights that have none of their own beside them."""
    dtype: ExportDtype = "f32"
    """Precision of the weights; q8_0 is for gguf alone."""

    @classmethod
    def defaults(cls, preset: Preset) -> "Export":
        """Leave model and target to the person; no preset has a say."""
        return cls(model=tyro.MISSING, to=tyro.MISSING)

    def run(self) -> None:
        """Export, and say what was made."""
        config = ExportConfig(target=self.to, dtype=self.dtype)
        folder = export(self.model, config, output=self.output, tokenizer_path=self.tokenizer)
        print(folder, *sorted(f"  {path.name}" for path in folder.iterdir()), sep="\n")
