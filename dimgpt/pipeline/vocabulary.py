"""The vocabulary of a workspace: trained on a sample of its texts, or loaded from a file."""

import contextlib
import itertools
import json
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from dimgpt.config import DataConfig, TokenizerConfig
from dimgpt.data.preparing.items import read_conversations
from dimgpt.data.preparing.listing import TABLE_SUFFIXES, TEXT_SUFFIXES, is_local
from dimgpt.data.preparing.listing import list_files as list_local_files
from dimgpt.data.preparing.vocabulary_sample import SampleCount, sample_mixture
from dimgpt.files import lock_file, replace_file
from dimgpt.hub import download_file, list_files
from dimgpt.settings import to_dict
from dimgpt.text.byte_level import LILLM_SPECIAL_TOKENS, ByteLevelTokenizer, train_byte_level
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.tokenizer import TOKENIZER_FILES, Tokenizer
from dimgpt.text.tokenizer_trainer import train_vocabulary
from dimgpt.workspace import Workspace, load_data_config

SAMPLE_NAME = "vocabulary_sample.json"
"""File with the sources and characters that the vocabulary was trained on."""
_HUB_PREFIX = "hf://"
log = logging.getLogger(__name__)


def prepare_vocabulary(
    workspace: Workspace, *, progress: Callable[[int], None] | None = None
) -> Tokenizer:
    """Load the vocabulary, or train it on a sample of the sources and save it.

    Raises:
        FileNotFoundError: A source or a group of conversations does not exist.
        ValueError: The existing vocabulary has another size or kind, or a path has nothing to read.
        OSError: The data folder cannot be written.
        RuntimeError: Another preparation is running in the same folder.
    """
    data, path = workspace.preset.data, workspace.vocabulary_path
    _require_files(data)
    with only_one(workspace):  # a folder that cannot be written is reported now, not hours later
        if path.exists():
            return _keep_vocabulary(workspace)
        count = SampleCount()
        documents = sample_mixture(
            data.sources,
            num_characters=data.vocabulary_characters,
            seed=data.seed,
            skip_bad=data.bad_records == "skip",
            folder=path.parent,
            count=count,
        )
        if data.use_conversations_in_vocabulary:
            documents = itertools.chain(documents, _spoken_texts(data, count))
        tokenizer = make_tokenizer(data, documents, progress=progress)
        if count.sources:  # a loaded tokenizer reads no documents
            _keep_count(path, tokenizer, count)
        tokenizer.save(path)
        keep_data_config(workspace)  # an interrupted preparation finds its sources there
        return tokenizer


def read_sample_count(workspace: Workspace, tokenizer: Tokenizer) -> SampleCount:
    """Return the sources and characters that the vocabulary was trained on.

    Empty if the vocabulary was not trained here, or was trained by a version that did not count.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads((workspace.vocabulary_path.parent / SAMPLE_NAME).read_bytes())
        if found["vocabulary_sha256"] == tokenizer.fingerprint:
            sources, characters = Counter(found["sources"]), Counter(found["characters"])
            return SampleCount(sources=sources, characters=characters)
    return SampleCount()


def make_tokenizer(
    data: DataConfig,
    documents: Iterable[str],
    *,
    progress: Callable[[int], None] | None = None,
    endpoint: str | None = None,
) -> Tokenizer:
    """Train a tokenizer on documents, or load the one of `tokenizer.path` without reading them.

    `progress` is called with the number of characters read so far. `endpoint` is the address of the
    hub, if not the usual one.

    Raises:
        FileNotFoundError: There is no file at `tokenizer.path`.
        ValueError: The file is damaged or of another kind, or the documents are too small.
    """
    config = data.tokenizer
    if config.path is not None:
        return _load_ready_one(config, config.path, endpoint)
    if config.kind == "greedy":
        return GreedyTokenizer(train_vocabulary(documents, data.vocab_size, progress=progress))
    return train_byte_level(
        documents,
        data.vocab_size,
        special_tokens=config.special_tokens or LILLM_SPECIAL_TOKENS,
        first_space=config.first_space,
        progress=progress,
    )


def only_one(workspace: Workspace) -> AbstractContextManager[None]:
    """Lock the data folder, so that two preparations never write the same files."""
    return lock_file(
        workspace.data_folder / "lock",
        refusal=f"another preparation is running in {workspace.data_folder}: wait until it ends, "
        "stop it, or prepare under another name",
    )


def keep_data_config(workspace: Workspace) -> None:
    """Save the settings of the token files; `load_data_config` reads them."""
    content = json.dumps(to_dict(workspace.preset.data), indent=1)
    replace_file(workspace.data_config_path, content.encode())


def _keep_count(path: Path, tokenizer: Tokenizer, count: SampleCount) -> None:
    """Write the sources and characters of a vocabulary next to it, as readable JSON."""
    found = {
        "vocabulary_sha256": tokenizer.fingerprint,
        "sources": dict(count.sources),
        "characters": dict(count.characters.most_common()),
    }
    content = json.dumps(found, indent=1, ensure_ascii=False)
    replace_file(path.with_name(SAMPLE_NAME), content.encode(errors="surrogatepass"))


def _keep_vocabulary(workspace: Workspace) -> Tokenizer:
    """Load the existing vocabulary; raise if its kind or size is not the preset's."""
    data, path = workspace.preset.data, workspace.vocabulary_path
    tokenizer = Tokenizer.load(path)
    if path.name != TOKENIZER_FILES[data.tokenizer.kind]:
        raise ValueError(
            f"{path} is not of tokenizer.kind {data.tokenizer.kind!r}: move it away to train "
            "another vocabulary"
        )
    if tokenizer.vocab_size != data.vocab_size:
        raise ValueError(
            f"{path} has {tokenizer.vocab_size:,} tokens: vocab_size is {data.vocab_size:,}; "
            "set vocab_size to this number, or move the file away to train another vocabulary"
        )
    if workspace.data_config_path.exists():
        made = {source.path for source in load_data_config(workspace).sources}
        if made != {source.path for source in data.sources}:
            log.warning(
                "%s was made for other sources and is kept: for a vocabulary of the new ones, "
                "prepare under another --name (NAME in create_data.ipynb)",
                path,
            )
    return tokenizer


def _require_files(data: DataConfig) -> None:
    """Check that all local files exist, before hours of work on the first ones."""
    for source in data.sources:
        if is_local(source.path):
            list_local_files(source.path, TEXT_SUFFIXES)
    for group in (*data.conversations, *data.preferences):
        for path in (group.path, group.system_prompts_path):
            if path and is_local(path):
                list_local_files(path, TABLE_SUFFIXES)


def _spoken_texts(data: DataConfig, count: SampleCount) -> Iterator[str]:
    skip_bad = data.bad_records == "skip"
    for group in data.conversations:
        conversations = read_conversations(group, seed=data.seed, skip_bad=skip_bad)
        texts = ("\n".join(said.text for said in talk.messages) for talk in conversations)
        yield from count.watch(group.name, texts)


def _load_ready_one(config: TokenizerConfig, path: str, endpoint: str | None) -> Tokenizer:
    is_remote = path.startswith(_HUB_PREFIX)
    tokenizer = _fetch(path, endpoint) if is_remote else Tokenizer.load(path)
    kind = next(kind for kind, name in TOKENIZER_FILES.items() if name == tokenizer.file_name)
    if kind != config.kind:
        raise ValueError(f"{path} is a {kind} tokenizer: kind is {config.kind!r}; set it to {kind}")
    if isinstance(tokenizer, ByteLevelTokenizer) and config.special_tokens:
        return tokenizer.with_special_tokens(config.special_tokens)
    return tokenizer


def _fetch(path: str, endpoint: str | None) -> Tokenizer:
    """Load a tokenizer from `hf://owner/name/path`."""
    owner, name, *parts = path.removeprefix(_HUB_PREFIX).split("/")
    repo_id, wanted = f"{owner}/{name}", "/".join(parts)
    files = {file.path: file for file in list_files(repo_id, kind="model", endpoint=endpoint)}
    if wanted not in files:
        names = ", ".join(list(files)[:8])
        raise FileNotFoundError(f"{repo_id} has no file {wanted!r}: it has {names}")
    with tempfile.TemporaryDirectory() as folder:
        return Tokenizer.load(download_file(files[wanted], Path(folder, Path(wanted).name)))
