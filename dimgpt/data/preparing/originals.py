"""Converts token files of DimensionGPT itself into prepared sources of today's format.

Its data folder holds `pretraining/NAME/` with `train.bin` (uint16), `train_ids.pkl` (start and size
of each document), the same for `val`, and `metadata.pkl`; and `finetuning/` with
`GROUP_conversations_train.pkl`, perhaps `_val.pkl`, and `GROUP_preprompts_train.pkl`. No code in a
pickle is executed. These files do not name their vocabulary: pass the `vocab.txt` of the same
folder. The originals are not changed. They do not record dropped documents, so the reports show
none.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.data.preparing.finishing import write_report
from dimgpt.data.preparing.plain_pickle import read_plain_pickle
from dimgpt.data.preparing.report import NUM_SAMPLES, SourceReport
from dimgpt.data.token_file import SYSTEM_PROMPTS, Manifest, write_manifest
from dimgpt.data.token_writer import TokenFileWriter
from dimgpt.files import new_folder
from dimgpt.text.tokenizer import Tokenizer

Ids = np.ndarray[Any, Any]
Documents = tuple[Ids, Ids]
"""Ids of documents, concatenated, and the tokens of each."""

_BLOCK_TOKENS = 1 << 22
_CONVERSATIONS, _PROMPTS = "_conversations_train.pkl", "_preprompts_train.pkl"


def convert_dimensiongpt_data(
    folder: Path, target: Path, tokenizer: Tokenizer
) -> tuple[tuple[SourceConfig, ...], tuple[ConversationSourceConfig, ...]]:
    """Write the token files of an original data folder into `target`, in today's format.

    If the original has no validation data, its last training document is held out. For
    conversations it is enough that one group has validation data: then no other group holds any
    out.

    Args:
        folder: The original's `data/`.
        target: Gets `pretraining/NAME` and `finetuning/GROUP`; each appears when it is complete.
        tokenizer: The vocabulary that the ids belong to.

    Returns:
        The sources with their multipliers, and the groups of conversations.

    Raises:
        FileNotFoundError: There are no such files, or one of them is missing.
        ValueError: A file is damaged, contains code (none is executed), or is of another
            vocabulary.
        OSError: The disk is full.
    """
    names = sorted(path.parent.name for path in folder.glob("pretraining/*/metadata.pkl"))
    files = sorted(folder.glob(f"finetuning/*{_CONVERSATIONS}"))
    groups = [path.name.removesuffix(_CONVERSATIONS) for path in files]
    if not names and not groups:
        raise FileNotFoundError(
            f"{folder} has neither pretraining/NAME/metadata.pkl nor finetuning/GROUP"
            f"{_CONVERSATIONS}: give the data folder of the original DimensionGPT"
        )
    sources = [_convert_source(folder / "pretraining" / name, target, tokenizer) for name in names]
    held_out = [_read_held_out(path) for path in files]
    must_split = not any(held_out)
    conversations = [
        _convert_group(path, group, target, tokenizer, held_out=kept, must_split=must_split)
        for path, group, kept in zip(files, groups, held_out, strict=True)
    ]
    return tuple(sources), tuple(conversations)


def _convert_source(folder: Path, target: Path, tokenizer: Tokenizer) -> SourceConfig:
    metadata = read_plain_pickle(folder / "metadata.pkl")
    try:
        num_tokens, num_held_out = (int(metadata["size"][name]) for name in ("train", "val"))
        source = SourceConfig(
            name=folder.name, path=str(folder), multiplier=float(metadata["multiplier"])
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{folder / 'metadata.pkl'} has no sizes and multiplier "
            f"({type(error).__name__}); copy it again"
        ) from None
    train = _read_token_file(folder, "train", tokenizer)
    held_out = _read_token_file(folder, "val", tokenizer) if num_held_out else None
    found = len(train[0]) + (len(held_out[0]) if held_out else 0)
    if found != num_tokens + num_held_out:
        raise ValueError(
            f"{folder} holds {found:,} tokens, but its metadata.pkl says "
            f"{num_tokens + num_held_out:,}: files of two runs are mixed; copy them again"
        )
    documents = _splits(train, held_out, path=folder)
    _write(target / "pretraining" / source.name, documents, tokenizer, path=folder)
    return source


def _read_held_out(path: Path) -> Documents | None:
    """Return the validation documents of a group of conversations, `None` if it has none."""
    path = path.with_name(path.name.replace("_train.pkl", "_val.pkl"))
    documents = _read_lists(path) if path.is_file() else None
    return documents if documents and len(documents[1]) else None


def _convert_group(
    path: Path,
    group: str,
    target: Path,
    tokenizer: Tokenizer,
    *,
    held_out: Documents | None,
    must_split: bool,
) -> ConversationSourceConfig:
    prompts_path = path.with_name(f"{group}{_PROMPTS}")
    config = ConversationSourceConfig(
        name=group,
        path=str(path),
        system_prompts_path=str(prompts_path) if prompts_path.is_file() else None,
        validation_ratio=None if held_out or must_split else 0.0,
    )
    train = _read_lists(path)
    is_whole = config.validation_ratio == 0
    documents = {"train": train} if is_whole else _splits(train, held_out, path=path)
    if config.system_prompts_path is not None:
        documents[SYSTEM_PROMPTS] = _read_lists(prompts_path)
    _write(target / "finetuning" / group, documents, tokenizer, path=path)
    return config


def _splits(train: Documents, held_out: Documents | None, *, path: Path) -> dict[str, Documents]:
    """Return both splits; without validation documents, the last training document is held out."""
    if held_out is not None and len(held_out[1]):
        return {"train": train, "validation": held_out}
    ids, lengths = train
    if len(lengths) < 2:
        raise ValueError(
            f"{path} has less than 2 documents, and validation needs one: leave it out, or add some"
        )
    size = int(lengths[-1])
    return {"train": (ids[:-size], lengths[:-1]), "validation": (ids[-size:], lengths[-1:])}


def _read_token_file(folder: Path, name: str, tokenizer: Tokenizer) -> Documents:
    """Open `NAME.bin`, checked against `NAME_ids.pkl`; its ids are memory-mapped."""
    index_path, path = folder / f"{name}_ids.pkl", folder / f"{name}.bin"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; copy it from the original's data folder")
    num_bytes = path.stat().st_size
    lengths = _read_lengths(index_path, num_tokens=num_bytes // 2)
    if num_bytes != 2 * lengths.sum():
        raise ValueError(f"{path} is longer than {index_path.name} says; copy it again")
    if not num_bytes:  # cannot be mapped
        return np.zeros(0, dtype="<u2"), lengths
    ids = np.asarray(np.memmap(path, dtype="<u2", mode="r"))
    ends = np.cumsum(lengths)
    opens = ids[ends - lengths] == tokenizer.special_tokens.start_of_text
    closes = ids[ends - 1] == tokenizer.special_tokens.end_of_text
    if not (opens & closes).all():
        raise ValueError(
            f"{path} lacks start-of-text or end-of-text where {index_path.name} has a document: "
            "the two are of different runs, or damaged; copy them again"
        )
    return ids, lengths


def _read_lengths(path: Path, *, num_tokens: int) -> Ids:
    """Return the sizes of documents that follow each other in `num_tokens`."""
    start, sizes = 0, []
    for record in _read_list(path):
        size = record.get("size") if isinstance(record, dict) else None
        if type(size) is not int or size < 1 or record.get("start") != start:
            raise ValueError(
                f"{path}: a document should start at {start:,}, where the one before ends, and "
                "have a size; copy it again"
            )
        start += size
        if start > num_tokens:
            raise ValueError(
                f"{path} has documents after token {num_tokens:,}, where its .bin ends; copy both "
                "again"
            )
        sizes.append(size)
    return np.array(sizes, dtype=np.int64)


def _read_lists(path: Path) -> Documents:
    lists = _read_list(path)
    for ids in lists:
        is_plain = isinstance(ids, list) and ids and all(type(id) is int for id in ids)
        if not is_plain or not 0 <= min(ids) <= max(ids) < 1 << 32:
            raise ValueError(f"{path} has values that are no lists of ids; copy it again")
    lengths = np.array(list(map(len, lists)), dtype=np.int64)
    return np.fromiter(chain.from_iterable(lists), dtype=np.int64), lengths


def _read_list(path: Path) -> list[Any]:
    values = read_plain_pickle(path)
    if not isinstance(values, list):
        raise ValueError(f"{path} holds a {type(values).__name__}, not a list; copy it again")
    return values


def _write(
    target: Path, documents: dict[str, Documents], tokenizer: Tokenizer, *, path: Path
) -> None:
    num_bytes = tokenizer.byte_counts()
    # The name of a special token is longer than the bytes that `byte_counts` gives it.
    num_characters = np.minimum([len(token) for token in tokenizer.tokens], num_bytes)
    files, report = {}, SourceReport(source=target.name)
    with new_folder(target) as folder:
        for name, (ids, lengths) in documents.items():
            with TokenFileWriter(folder, name, vocab_size=tokenizer.vocab_size) as writer:
                for block, sizes in _blocks(ids, lengths):
                    # Clip ids outside the vocabulary: the writer refuses them anyway.
                    counts = num_characters.take(block, mode="clip")
                    characters = np.add.reduceat(counts, np.cumsum(sizes) - sizes)
                    writer.write_documents(
                        block,
                        sizes,
                        num_characters=int(characters.sum()),
                        num_bytes=int(num_bytes.take(block, mode="clip").sum()),
                    )
                    if name != SYSTEM_PROMPTS:
                        report.keep(np.maximum(characters, 1), sizes)
                        for document in np.split(block, np.cumsum(sizes[:NUM_SAMPLES]))[:-1]:
                            text = tokenizer.decode(document.tolist())
                            report.observe(text, text)
            files[name] = writer.summary
        manifest = Manifest(
            vocabulary_sha256=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            source={"original": "DimensionGPT", "path": str(path)},
            dropped={},
            files=files,
        )
        write_report(folder, report)
        write_manifest(folder, manifest)


def _blocks(ids: Ids, lengths: Ids) -> Iterator[Documents]:
    """Divide documents into blocks of about 4 million tokens."""
    ends = np.cumsum(lengths)
    borders = np.flatnonzero(np.diff(ends // _BLOCK_TOKENS)) + 1
    yield from zip(np.split(ids, ends[borders - 1]), np.split(lengths, borders), strict=True)
