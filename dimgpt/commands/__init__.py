"""The verbs of the command line, each a dataclass whose fields are its flags.

Thin calls into the package: what a verb does is done in `pipeline/` and below. How words become
flags is the matter of `cli.py`.
"""

from typing import Any

from dimgpt.commands.data import ImportData, Merge, Prepare
from dimgpt.commands.demo import Demo
from dimgpt.commands.download import Download
from dimgpt.commands.export import Export
from dimgpt.commands.generation import Chat, Generate
from dimgpt.commands.imports import Import
from dimgpt.commands.models import Info
from dimgpt.commands.training import Evaluate, Finetune, Resume, Train

VERBS: dict[str, Any] = {
    "prepare": Prepare,
    "merge": Merge,
    "import-data": ImportData,
    "train": Train,
    "finetune": Finetune,
    "resume": Resume,
    "evaluate": Evaluate,
    "generate": Generate,
    "chat": Chat,
    "export": Export,
    "info": Info,
    "download": Download,
    "import": Import,
    "demo": Demo,
}
