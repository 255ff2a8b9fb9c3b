"""The verbs that prepare data: `prepare`, `merge` and `import-data`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from tqdm import tqdm

from dimgpt.config import DataConfig
from dimgpt.data.preparing.plan import Share
from dimgpt.display.progress import PreparationBar, progress_stream
from dimgpt.display.tables import Table
from dimgpt.pipeline.data import import_data, merge_shares, open_corpus, prepare_files, read_reports
from dimgpt.pipeline.mixture import corpus_shortfalls, mixture_rows
from dimgpt.pipeline.vocabulary import SAMPLE_NAME, prepare_vocabulary, read_sample_count
from dimgpt.presets import get_preset
from dimgpt.settings import override
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.workspace import Workspace, customise_data, load_data_config, load_vocabulary

_SHOWN_CHARACTERS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Folders:
    """Flags for the folders of data and models."""

    preset: str = "demo"
    """Settings to start from: demo, french-5m, dimensiongpt-0.2b."""
    name: str | None = None
    """Name of the folders in data/ and models/; the preset's if not given."""
    data_name: str | None = None
    """Name of the folder in data/, if it differs: several models can share one preparation."""
    data_root: Path = Path("data")
    """Folder with the vocabularies and token files."""
    models_root: Path = Path("models")
    """Folder with the models and their runs."""

    def workspace(self, **changes: Any) -> Workspace:
        """Return the preset with changed fields, in these folders."""
        return Workspace(
            preset=override(get_preset(self.preset), name=self.name, **changes),
            data_root=self.data_root,
            models_root=self.models_root,
            data_name=self.data_name,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge(Folders):
    """Flags of `merge`; `prepare` has them too."""

    config: Path | None = None
    """JSON file with any of these settings, nested as here: {"data": {"test_ratio": 0.01}}; flags
    override it."""
    sources: tuple[str, ...] = ()
    """Your own texts (files, folders) instead of the preset's: .txt .md .jsonl .json .csv
    .parquet, or toyGPT's datasets.json."""
    text_column: str | None = None
    """Name of the column with the text in your own texts, if it is not `text`."""
    conversations: tuple[str, ...] = ()
    """Your own conversations (.jsonl .json .csv .parquet); with --sources, none if not given."""
    preferences: tuple[str, ...] = ()
    """Your own pairs of answers, records with `prompt`, `chosen` and `rejected`; with --sources,
    none if not given."""
    data: DataConfig

    def data_workspace(self) -> Workspace:
        """Return the workspace with the texts of the flags.

        If the flags give no sources, a folder that was prepared before keeps its own.
        """
        workspace, data, usual = self.workspace(), self.data, get_preset(self.preset).data
        kinds = ("sources", "conversations", "preferences")
        changed = [kind for kind in kinds if getattr(data, kind) != getattr(usual, kind)]
        for kind in changed:
            if self.sources or getattr(self, kind):
                raise ValueError(f"give either {kind} or data.{kind}.*, not both")
        if not (self.sources or changed) and workspace.data_config_path.exists():
            made = load_data_config(workspace)
            if made.sources != data.sources:
                names = ", ".join(source.name for source in made.sources)
                print(f"Keeping the sources of {workspace.data_folder}: {names}")
            usual_ones = data.preferences if made.sources == data.sources else ()
            kept = {kind: getattr(made, kind) for kind in kinds}
            kept["preferences"] = kept["preferences"] or usual_ones  # older data have none
            data = override(data, **kept)
        preset = customise_data(
            override(workspace.preset, data=data),
            sources=self.sources,
            conversations=self.conversations,
            preferences=self.preferences,
            text_column=self.text_column,
        )
        return override(workspace, preset=preset)

    def run(self) -> None:
        """Join indexes and manifests, and show the mixture."""
        workspace = self.data_workspace()
        merge_shares(workspace)
        _show(workspace)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepare(Merge):
    """Flags of `prepare`."""

    only: Literal["vocabulary"] | None = None
    """Stop after the vocabulary; --shard needs it."""
    shard: str | None = None
    """`I/N`: write only share I of N, counted from 1; `merge` joins them. Needs the vocabulary."""

    def run(self) -> None:
        """Write vocabulary and token files, and show their statistics."""
        workspace = self.data_workspace()
        share = None if self.shard is None else Share.parse(self.shard)
        try:
            if share is None:
                with tqdm(
                    desc="vocabulary",
                    unit="char",
                    unit_scale=True,
                    delay=0.1,  # an error that comes at once shows no bar
                    file=progress_stream(),
                ) as bar:
                    tokenizer = prepare_vocabulary(
                        workspace, progress=lambda done: bar.update(done - bar.n)
                    )
                _show_vocabulary(workspace, tokenizer)
                if self.only is not None:
                    return
            else:
                tokenizer = load_vocabulary(workspace)
            with PreparationBar() as watch:
                prepare_files(workspace, tokenizer, share=share, progress=watch)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "finished parts are kept, run the same command again to continue"
            ) from None
        if share is None:
            _show(workspace)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportData:
    """Flags of `import-data`."""

    path: tyro.conf.Positional[Path]
    """DimensionGPT's data folder, with pretraining/ and finetuning/; it is only read."""
    name: str = "dimensiongpt"
    """Name of the new folder in data/."""
    vocabulary: Path | None = None
    """The vocab.txt that these files were made with; the one in the folder if not given."""
    data_root: Path = Path("data")
    """Folder for the new folder."""

    def run(self) -> None:
        """Write vocabulary and token files, and show the mixture."""
        preset = override(get_preset("dimensiongpt-0.2b"), name=self.name)
        workspace = Workspace(preset=preset, data_root=self.data_root)
        _show(import_data(workspace, self.path, vocabulary_path=self.vocabulary))


def _show_vocabulary(workspace: Workspace, tokenizer: Tokenizer) -> None:
    """Print the size of the vocabulary and the texts that it was trained on."""
    path = workspace.vocabulary_path
    count = read_sample_count(workspace, tokenizer)
    print(f"{tokenizer.vocab_size:,} tokens in {path}")
    if count.sources:
        print(Table.of(count.source_rows(), title="What the vocabulary was trained on"))
        names = count.named_characters()
        first = ", ".join(names[:_SHOWN_CHARACTERS])
        counts = path.with_name(SAMPLE_NAME)
        print(f"{len(names):,} distinct characters (all: {counts}), the most frequent: {first}")


def _show(workspace: Workspace) -> None:
    """Print how much of each source was kept and dropped, and the mixture."""
    reports, data = read_reports(workspace), workspace.preset.data
    print(Table.of([report.row() for report in reports], title="Prepared sources"))
    for report in reports:
        for note in report.notes:
            print(f"  {report.source}: {note}")
    if data.sources:
        corpus, published = open_corpus(workspace), data.published_shares
        print(Table.of(mixture_rows(corpus, published), title="Mixture for pretraining"))
        for line in corpus_shortfalls(corpus, published):
            print(f"  {line}")
    if not data.conversations:
        print("No conversations: to fine-tune later, prepare again with --conversations FILE")
