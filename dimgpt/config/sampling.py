"""How the next token is chosen."""

from dataclasses import dataclass

from dimgpt.config.rules import require_not_negative, require_positive, require_ratio


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
        for name in ("temperature", "no_repeat_strength"):
            require_not_negative(self, name)
        for name in ("repetition_penalty", "max_new_tokens"):
            require_positive(self, name)
        require_ratio(self, "top_p")
        if self.top_k is not None:
            require_positive(self, "top_k")
        if self.seed is not None:
            require_not_negative(self, "seed")
