"""The verbs that let a model speak."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dimgpt.config import SamplingConfig
from dimgpt.generation.chat import ChatSession
from dimgpt.generation.generator import TextGenerator
from dimgpt.pipeline import open_model
from dimgpt.presets import Preset
from dimgpt.runtime import choose_runtime
from dimgpt.workspace import Workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class Generate:
    """Complete a text."""

    preset: str
    """Whose sampling settings to start from."""
    model: Path
    """Model folder, or weights of another system as they are (see the verb import)."""
    tokenizer: Path | None = None
    """A tokenizer.json or vocab.txt, for weights that have none of their own beside them."""
    prompt: str = ""
    """Text to go on with."""
    sampling: SamplingConfig

    @classmethod
    def defaults(cls, preset: Preset) -> "Generate":
        """Fill in what the preset says."""
        folder = Workspace(preset=preset).model_dir("pretraining")
        return cls(preset=preset.name, model=folder, sampling=preset.sampling)

    def run(self) -> None:
        """Print the prompt and what follows, as it comes."""
        opened = open_model(self.model, runtime=choose_runtime(), tokenizer_path=self.tokenizer)
        writer = TextGenerator(*opened)
        _print_stream([self.prompt], writer.stream(self.prompt, self.sampling))


@dataclass(frozen=True, kw_only=True, slots=True)
class Chat:
    """Talk with a fine-tuned model; an empty line or Ctrl-D ends it."""

    preset: str
    """Whose sampling settings to start from."""
    model: Path
    """Model folder, or weights of another system as they are (see the verb import)."""
    tokenizer: Path | None = None
    """A tokenizer.json or vocab.txt, for weights that have none of their own beside them."""
    system_prompt: str | None = None
    """What the conversation begins with."""
    sampling: SamplingConfig

    @classmethod
    def defaults(cls, preset: Preset) -> "Chat":
        """Fill in what the preset says."""
        return cls(
            preset=preset.name,
            model=Workspace(preset=preset).model_dir("finetuning"),
            system_prompt=preset.system_prompt,
            sampling=preset.sampling,
        )

    def run(self) -> None:
        """Read lines and stream answers."""
        opened = open_model(self.model, runtime=choose_runtime(), tokenizer_path=self.tokenizer)
        session = ChatSession(*opened, self.sampling, self.system_prompt)
        while question := _read_line():
            _print_stream(session.ask(question))


def _read_line() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _print_stream(*streams: Any) -> None:
    for stream in streams:
        for piece in stream:
            print(piece, end="", flush=True)
    print()
