"""The verb that makes data."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from dimgpt.commands.folders import Folders
from dimgpt.config import DataConfig
from dimgpt.customise import customise_data
from dimgpt.display import Table
from dimgpt.pipeline import open_corpus, prepare_files, prepare_vocabulary
from dimgpt.presets import Preset, get_preset


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepare(Folders):
    """Train the vocabulary and write the token files."""

    sources: tuple[str, ...] = ()
    """Your own texts instead of the preset's: files or folders (.txt .jsonl .jsonl.gz .parquet)."""
    conversations: tuple[str, ...] = ()
    """Your own conversations instead of the preset's: files or folders (.jsonl .jsonl.gz)."""
    data: DataConfig

    @classmethod
    def defaults(cls, preset: Preset) -> "Prepare":
        """Fill in what the preset says."""
        return cls(preset=preset.name, data=preset.data)

    def run(self) -> None:
        """Write vocabulary and token files, and show the mixture."""
        if self.sources and self.data.sources != get_preset(self.preset).data.sources:
            raise ValueError("give either sources or data.sources.*, which describe them singly")
        preset = customise_data(
            self.workspace(data=self.data).preset,
            sources=self.sources,
            conversations=self.conversations,
        )
        workspace = dataclasses.replace(self.workspace(), preset=preset)
        with tqdm(desc="vocabulary", unit="char", unit_scale=True) as bar:
            tokenizer = prepare_vocabulary(workspace, progress=lambda done: _move(bar, done))
        with tqdm(desc="token files", unit="char", unit_scale=True) as bar:
            prepare_files(workspace, tokenizer, progress=lambda done: _move(bar, done))
        print(Table.of(open_corpus(workspace).table()))


def _move(bar: Any, done: int) -> None:
    bar.update(done - bar.n)
