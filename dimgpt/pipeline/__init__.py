"""The steps from a preset to a model, shared by the notebooks and the command line.

Each step finds what the ones before it left in `data/` and `models/`, and keeps what is already
made. Nothing is computed here: the rooms do the work, this room says what goes where.
"""

from dimgpt.pipeline.cards import save_curves
from dimgpt.pipeline.data import (
    match_vocabulary,
    merge_shares,
    open_conversations,
    open_corpus,
    open_data,
    prepare_files,
    prepare_share,
    prepare_vocabulary,
    read_reports,
)
from dimgpt.pipeline.data_imports import import_data
from dimgpt.pipeline.exports import export
from dimgpt.pipeline.imports import import_model, open_original
from dimgpt.pipeline.models import (
    build_model,
    open_model,
    require_vocabulary_of_data,
    save_trained,
)
from dimgpt.pipeline.runs import find_run, open_run
from dimgpt.pipeline.training import build_trainer, evaluate_documents
from dimgpt.workspace import Stage, Workspace, load_vocabulary

__all__ = [
    "Stage",
    "Workspace",
    "build_model",
    "build_trainer",
    "evaluate_documents",
    "export",
    "find_run",
    "import_data",
    "import_model",
    "load_vocabulary",
    "match_vocabulary",
    "merge_shares",
    "open_conversations",
    "open_corpus",
    "open_data",
    "open_model",
    "open_run",
    "open_original",
    "prepare_files",
    "prepare_share",
    "prepare_vocabulary",
    "read_reports",
    "require_vocabulary_of_data",
    "save_curves",
    "save_trained",
]
