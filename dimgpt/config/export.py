"""What an export is to be."""

from dataclasses import dataclass
from typing import Literal, get_args

from dimgpt.config.rules import require_choice

ExportTarget = Literal["transformers", "gguf", "safetensors", "pt"]
ExportDtype = Literal["f32", "f16", "bf16", "q8_0"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """What an export is to be."""

    target: ExportTarget
    """Program that is to open it: `pt` is the original DimensionGPT, `safetensors` is dimgpt."""
    dtype: ExportDtype = "f32"
    """Precision of the weights; `q8_0`, blocks of 8 bits, is for `gguf` alone."""

    def __post_init__(self) -> None:
        require_choice(self, "target", get_args(ExportTarget))
        require_choice(self, "dtype", get_args(ExportDtype))
        if self.dtype == "q8_0" and self.target != "gguf":
            raise ValueError(f"dtype is 'q8_0': {self.target} stores f32, f16 or bf16; choose one")
        if self.dtype != "f32" and self.target == "pt":
            raise ValueError(f"dtype is {self.dtype!r}: pt stores f32, as the original does")
