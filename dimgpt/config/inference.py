"""What is done with a trained model: choosing tokens, and exporting it."""

from dataclasses import dataclass
from typing import Literal

from dimgpt.config.rules import (
    require_choices,
    require_none_or_positive,
    require_not_negative,
    require_positive,
    require_ratio,
)

ExportTarget = Literal["transformers", "gguf", "safetensors", "pt"]
ExportDtype = Literal["f32", "f16", "bf16", "q8_0"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """How the next token is chosen."""

    temperature: float = 1.0
    """Divides the log-probabilities; 0 takes the most probable token."""
    top_p: float = 1.0
    """Keep the most probable tokens whose sum first reaches this, in 0..1."""
    top_k: int | None = None
    """Keep this many of the most probable tokens."""
    no_repeat_strength: float = 0.0
    """DimensionGPT's penalty, fading with distance over the context; 0 is off."""
    repetition_penalty: float = 1.0
    """The field's penalty on tokens that occurred; 1 is off."""
    max_new_tokens: int = 512
    """Tokens after which an answer ends."""
    seed: int | None = None
    """Seed of the draws; `None` draws a fresh one."""

    def __post_init__(self) -> None:
        require_not_negative(self, "temperature", "no_repeat_strength")
        require_positive(self, "repetition_penalty", "max_new_tokens")
        require_ratio(self, "top_p")
        require_none_or_positive(self, "top_k")
        if self.seed is not None:
            require_not_negative(self, "seed")


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """Which program an export is for, and its precision."""

    target: ExportTarget
    """Program that is to open it: `pt` is the original DimensionGPT, `safetensors` is dimgpt."""
    dtype: ExportDtype = "f32"
    """Precision of the weights; `q8_0`, blocks of 8 bits, is for `gguf` alone."""

    def __post_init__(self) -> None:
        require_choices(self)
        if self.dtype == "q8_0" and self.target != "gguf":
            raise ValueError(f"dtype is 'q8_0': {self.target} stores f32, f16 or bf16; choose one")
        if self.dtype != "f32" and self.target == "pt":
            raise ValueError(f"dtype is {self.dtype!r}: pt stores f32, as the original does")
