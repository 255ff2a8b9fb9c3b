"""The verbs that make data."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from tqdm import tqdm

from dimgpt.commands.folders import Folders
from dimgpt.config import DataConfig
from dimgpt.customise import customise_data
from dimgpt.data.preparing.shares import Share
from dimgpt.display.progress import PreparationBar
from dimgpt.display.tables import Table
from dimgpt.pipeline import (
    Workspace,
    import_data,
    load_vocabulary,
    merge_shares,
    open_corpus,
    prepare_files,
    prepare_share,
    prepare_vocabulary,
    read_reports,
)
from dimgpt.presets import Preset, get_preset


@dataclass(frozen=True, kw_only=True, slots=True)
class _Data(Folders):
    """Which data, and what is done with them."""

    sources: tuple[str, ...] = ()
    """Your own texts instead of the preset's: files or folders (.txt .jsonl .csv .parquet)."""
    conversations: tuple[str, ...] = ()
    """Your own conversations instead of the preset's: files or folders (.jsonl .csv .parquet)."""
    data: DataConfig

    @classmethod
    def defaults(cls, preset: Preset) -> "_Data":
        """Fill in what the preset says."""
        return cls(preset=preset.name, data=preset.data)

    def data_workspace(self) -> Workspace:
        """Return the preset with these data."""
        if self.sources and self.data.sources != get_preset(self.preset).data.sources:
            raise ValueError("give either sources or data.sources.*, which describe them singly")
        preset = customise_data(
            self.workspace(data=self.data).preset,
            sources=self.sources,
            conversations=self.conversations,
        )
        return dataclasses.replace(self.workspace(), preset=preset)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepare(_Data):
    """Train the vocabulary and write the token files; a run that was cut off goes on."""

    only: Literal["vocabulary"] | None = None
    """Stop after the vocabulary, which shares need before they begin."""
    shard: str | None = None
    """`I/N`: write share I of N only, counted from 1; `merge` joins them. Needs the vocabulary."""

    def run(self) -> None:
        """Write vocabulary and token files, and show what is there."""
        try:
            self._prepare(self.data_workspace())
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "finished parts are kept, run the same command again to go on"
            ) from None

    def _prepare(self, workspace: Workspace) -> None:
        if self.shard is not None:
            share, tokenizer = Share.parse(self.shard), load_vocabulary(workspace)
            with PreparationBar() as bar:
                prepare_share(workspace, tokenizer, share, progress=bar)
            return
        with tqdm(desc="vocabulary", unit="char", unit_scale=True) as counter:
            tokenizer = prepare_vocabulary(workspace, progress=lambda done: _move(counter, done))
        if self.only is None:
            with PreparationBar() as bar:
                prepare_files(workspace, tokenizer, progress=bar)
            _show(workspace)


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge(_Data):
    """Join the shares that `prepare --shard I/N` wrote."""

    def run(self) -> None:
        """Join indexes and manifests, and show the mixture."""
        workspace = self.data_workspace()
        merge_shares(workspace)
        _show(workspace)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportData:
    """Take over token files that DimensionGPT itself wrote, with their vocabulary."""

    path: tyro.conf.Positional[Path]
    """The original's data folder, with pretraining/ and finetuning/; it stays as it is."""
    name: str = "dimensiongpt"
    """Name of the folder in data/."""
    vocabulary: Path | None = None
    """The vocab.txt that they were made with; the one in the folder if not given."""
    data_root: Path = Path("data")
    """Gets the folder."""

    @classmethod
    def defaults(cls, preset: Preset) -> "ImportData":
        """Return the defaults, which no preset changes."""
        return cls(path=tyro.MISSING)

    def run(self) -> None:
        """Write vocabulary and token files, and show the mixture."""
        preset = dataclasses.replace(get_preset("dimensiongpt-0.2b"), name=self.name)
        workspace = Workspace(preset=preset, data_root=self.data_root)
        _show(import_data(workspace, self.path, vocabulary_path=self.vocabulary))


def _show(workspace: Workspace) -> None:
    """Print what was kept and dropped of each source, and the mixture."""
    print(Table.of([report.row() for report in read_reports(workspace)], title="What is there"))
    if workspace.preset.data.sources:
        print(Table.of(open_corpus(workspace).table(), title="What pretraining draws"))


def _move(bar: Any, done: int) -> None:
    bar.update(done - bar.n)
