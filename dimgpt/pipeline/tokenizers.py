"""The tokenizer that a preset asks for: trained on its documents, or a ready one."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from dimgpt.config import DataConfig, TokenizerConfig
from dimgpt.hub import download_file, list_files
from dimgpt.text.byte_level import LILLM_SPECIAL_TOKENS, ByteLevelTokenizer, train_byte_level
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.text.tokenizer_trainer import train_vocabulary

_HUB_PREFIX = "hf://"


def make_tokenizer(
    data: DataConfig,
    documents: Iterable[str],
    *,
    progress: Callable[[int], None] | None = None,
    endpoint: str | None = None,
) -> Tokenizer:
    """Train the tokenizer that the settings describe, or take the ready one that they name.

    Args:
        data: Kind, size, special tokens.
        documents: What to train on; not read where a ready one is named.
        progress: Called with the number of characters read so far.
        endpoint: Address of the hub; `None` is the usual one.

    Raises:
        FileNotFoundError: The ready one is not there.
        ValueError: It is damaged or of another kind, or the documents are too small.
    """
    config = data.tokenizer
    if config.path is not None:
        return _take_ready_one(config, config.path, endpoint)
    if config.kind == "greedy":
        return GreedyTokenizer(train_vocabulary(documents, data.vocab_size, progress=progress))
    return train_byte_level(
        documents,
        data.vocab_size,
        special_tokens=config.special_tokens or LILLM_SPECIAL_TOKENS,
        first_space=config.first_space,
        progress=progress,
    )


def _take_ready_one(config: TokenizerConfig, path: str, endpoint: str | None) -> Tokenizer:
    if path.startswith(_HUB_PREFIX):
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = Tokenizer.load(_fetch(path, Path(folder), endpoint))
    else:
        tokenizer = Tokenizer.load(Path(path))
    kind = "byte_level" if isinstance(tokenizer, ByteLevelTokenizer) else "greedy"
    if kind != config.kind:
        raise ValueError(f"{path} is a {kind} tokenizer: kind is {config.kind!r}; set it to {kind}")
    if isinstance(tokenizer, ByteLevelTokenizer) and config.special_tokens:
        return tokenizer.with_special_tokens(config.special_tokens)
    return tokenizer


def _fetch(path: str, folder: Path, endpoint: str | None) -> Path:
    owner, name, *inside = path.removeprefix(_HUB_PREFIX).split("/")
    files = list_files(f"{owner}/{name}", kind="model", endpoint=endpoint)
    found = [file for file in files if file.path == "/".join(inside)]
    if not found:
        raise FileNotFoundError(
            f"{owner}/{name} has no file {'/'.join(inside)!r}: it has "
            f"{', '.join(file.path for file in files[:8])}"
        )
    return download_file(found[0], folder / Path(found[0].path).name)
