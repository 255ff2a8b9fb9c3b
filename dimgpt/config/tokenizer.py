"""The vocabulary: which kind is trained, or which ready one is taken."""

from dataclasses import dataclass
from typing import Literal, get_args

from dimgpt.config.rules import require_choice

TokenizerKind = Literal["greedy", "byte_level"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """Which tokenizer a model gets."""

    kind: TokenizerKind = "greedy"
    """`greedy` is DimensionGPT's list of tokens; `byte_level` is the BPE of lilLM and GPT-2."""
    special_tokens: tuple[str, ...] = ()
    """Special tokens of a byte-level one: trained with it, or added to a ready one."""
    first_space: bool = False
    """Put a space before a text that has none; a byte-level one only."""
    path: str | None = None
    """A ready one instead of training: a file, or `hf://owner/name/tokenizer.json`."""

    def __post_init__(self) -> None:
        require_choice(self, "kind", get_args(TokenizerKind))
        if self.kind == "greedy" and (self.special_tokens or self.first_space):
            raise ValueError(
                f"special_tokens is {self.special_tokens} and first_space {self.first_space}: a "
                "greedy vocabulary has its ten special tokens and no first space; drop them, or "
                "set kind to 'byte_level'"
            )
