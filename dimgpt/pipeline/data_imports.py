"""Token files that DimensionGPT itself wrote, taken over with the vocabulary they belong to."""

from dataclasses import replace
from pathlib import Path

from dimgpt.config import ConversationSourceConfig
from dimgpt.data.preparing.originals import convert_dimensiongpt_data
from dimgpt.pipeline.data import keep_data_config, only_one
from dimgpt.settings import override
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.workspace import Workspace, load_vocabulary


def import_data(
    workspace: Workspace, folder: Path, *, vocabulary_path: Path | None = None
) -> Workspace:
    """Write vocabulary and token files of an original data folder, which stays as it is.

    Sources keep their multipliers; groups of conversations that the preset knows get its ratios.
    The same import once more changes nothing.

    Args:
        workspace: Where to write them.
        folder: The original's `data/`, with `pretraining/` and `finetuning/`.
        vocabulary_path: Its `vocab.txt`; `None` takes the one in the folder.

    Returns:
        The workspace with these data.

    Raises:
        FileNotFoundError: Data or vocabulary are missing.
        ValueError: A file is damaged or of another vocabulary, or other data are there.
        RuntimeError: Another preparation is running in the same folder.
        OSError: The disk is full.
    """
    path = vocabulary_path or folder / "vocab.txt"
    if not path.is_file():
        hint = "put the vocab.txt that DimensionGPT used there, or name it with --vocabulary"
        raise FileNotFoundError(f"{path} is missing: {hint}")
    tokenizer, target = Tokenizer.load(path), workspace.vocabulary_path
    with only_one(workspace):
        if target.exists() and load_vocabulary(workspace).fingerprint != tokenizer.fingerprint:
            raise ValueError(f"{target} is another vocabulary, which stays: choose another name")
        sources, groups = convert_dimensiongpt_data(folder, target.parent, tokenizer)
        tokenizer.save(target)
        known = {group.name: group for group in workspace.preset.data.conversations}
        conversations = tuple(_with_ratios(group, known.get(group.name)) for group in groups)
        changes = {"sources": sources, "conversations": conversations}
        data = override(workspace.preset.data, **changes, vocab_size=tokenizer.vocab_size)
        made = replace(workspace, preset=replace(workspace.preset, data=data))
        keep_data_config(made)
    return made


def _with_ratios(
    group: ConversationSourceConfig, known: ConversationSourceConfig | None
) -> ConversationSourceConfig:
    if known is None:
        return group
    return replace(group, ratio=known.ratio, system_prompt_ratios=known.system_prompt_ratios)
