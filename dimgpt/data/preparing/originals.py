"""Token files that DimensionGPT itself wrote, as prepared sources of today's format.

Its data folder holds `pretraining/NAME/` with `train.bin` (uint16), `train_ids.pkl` (start and size
of each document), the same for `val`, and `metadata.pkl`; and `finetuning/` with
`GROUP_conversations_train.pkl`, perhaps `_val.pkl`, and `GROUP_preprompts_train.pkl`. The pickles
are read without unpickling. Nothing in these files tells their vocabulary: give the `vocab.txt`
that lay beside them. The originals are left as they are. What was dropped for them is not known, so
their reports do not say it.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.data.manifest import SYSTEM_PROMPTS, Manifest, TokenFileSummary, write_manifest
from dimgpt.data.preparing.finishing import write_report
from dimgpt.data.preparing.plain_pickle import iterate_plain_pickle, read_plain_pickle
from dimgpt.data.preparing.report import NUM_SAMPLES, SourceReport
from dimgpt.data.token_writer import TokenFileWriter
from dimgpt.files import new_folder
from dimgpt.text.tokenizer import Tokenizer

Ids = np.ndarray[Any, Any]
Documents = tuple[Ids, Ids]
"""Ids of some documents, concatenated, and the tokens of each."""

_BLOCK_TOKENS = 1 << 22
_CONVERSATIONS, _PROMPTS = "_conversations_train.pkl", "_preprompts_train.pkl"


def convert_dimensiongpt_data(
    folder: Path, target: Path, tokenizer: Tokenizer
) -> tuple[tuple[SourceConfig, ...], tuple[ConversationSourceConfig, ...]]:
    """Write the token files of an original data folder into `target`, in today's format.

    Where the original kept nothing for validation, its last training document becomes it.

    Args:
        folder: The original's `data/`.
        target: Gets `pretraining/NAME` and `finetuning/GROUP`; each appears when it is complete.
        tokenizer: The vocabulary that the ids belong to.

    Returns:
        The sources with their multipliers, and the groups of conversations.

    Raises:
        FileNotFoundError: There are no such files, or one of them is missing.
        ValueError: A file is damaged, holds code (none is run), or is of another vocabulary.
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
    conversations = [_convert_group(folder, group, target, tokenizer) for group in groups]
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
            f"{folder / 'metadata.pkl'} does not tell sizes and multiplier "
            f"({type(error).__name__}); copy it again"
        ) from None
    train = _read_token_file(folder, "train", tokenizer)
    validation = _read_token_file(folder, "val", tokenizer) if num_held_out else None
    _write(
        target / "pretraining" / source.name,
        _splits(train, validation, path=folder),
        tokenizer,
        path=folder,
        num_tokens=num_tokens + num_held_out,
    )
    return source


def _convert_group(
    folder: Path, group: str, target: Path, tokenizer: Tokenizer
) -> ConversationSourceConfig:
    path = folder / "finetuning" / f"{group}{_CONVERSATIONS}"
    validation_path = path.with_name(path.name.replace("_train.pkl", "_val.pkl"))
    prompts_path = path.with_name(f"{group}{_PROMPTS}")
    config = ConversationSourceConfig(
        name=group,
        path=str(path),
        system_prompts_path=str(prompts_path) if prompts_path.is_file() else None,
    )
    validation = _read_lists(validation_path) if validation_path.is_file() else None
    documents = _splits(_read_lists(path), validation, path=path)
    if config.system_prompts_path is not None:
        documents[SYSTEM_PROMPTS] = _read_lists(prompts_path)
    _write(target / "finetuning" / group, documents, tokenizer, path=path)
    return config


def _splits(
    train: Iterator[Documents], validation: Iterator[Documents] | None, *, path: Path
) -> dict[str, Iterable[Documents]]:
    if validation is not None:
        return {"train": train, "validation": validation}
    held_back: list[Documents] = []  # filled when the training documents have been written
    return {"train": _hold_back_last(train, held_back, path=path), "validation": held_back}


def _hold_back_last(
    pieces: Iterator[Documents], held_back: list[Documents], *, path: Path
) -> Iterator[Documents]:
    """Yield all documents but the last, which goes to `held_back`."""
    num_documents, last = 0, None
    for piece in pieces:
        if last is not None:
            yield last
        last = piece
        num_documents += len(piece[1])
    if last is None or num_documents < 2:
        raise ValueError(
            f"{path} holds too little to keep a document for validation: leave it out, or add some"
        )
    ids, lengths = last
    size = int(lengths[-1])
    held_back.append((ids[-size:], lengths[-1:]))
    yield ids[:-size], lengths[:-1]


def _read_token_file(folder: Path, name: str, tokenizer: Tokenizer) -> Iterator[Documents]:
    """Yield the documents of `NAME.bin`, checked against `NAME_ids.pkl` and against each other."""
    special_tokens = tokenizer.special_tokens
    index_path, path = folder / f"{name}_ids.pkl", folder / f"{name}.bin"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; copy it from the original's data folder")
    with path.open("rb") as file:
        for lengths in _read_lengths(index_path, num_tokens=path.stat().st_size // 2):
            ids = np.frombuffer(file.read(2 * int(lengths.sum())), dtype="<u2")
            ends = np.cumsum(lengths)
            opens = ids[ends - lengths] == special_tokens.start_of_text
            closes = ids[ends - 1] == special_tokens.end_of_text
            if not (opens & closes).all():
                raise ValueError(
                    f"{path} has documents without start or end-of-text where {index_path.name} "
                    "puts them: the two are of different runs, or it is damaged; copy them again"
                )
            yield ids, lengths
        if file.read(1):
            raise ValueError(f"{path} goes on after {index_path.name} ends; copy it again")


def _read_lengths(path: Path, *, num_tokens: int) -> Iterator[Ids]:
    """Yield the sizes of documents, some at a time, which follow each other in `num_tokens`."""
    start, waiting = 0, 0
    sizes: list[int] = []
    for records in iterate_plain_pickle(path):
        for record in records:
            size = record.get("size") if isinstance(record, dict) else None
            if type(size) is not int or size < 1 or record.get("start") != start:
                raise ValueError(
                    f"{path}: a document should start at {start:,}, where the one before ends, and "
                    "have a size; copy it again"
                )
            start, waiting = start + size, waiting + size
            if start > num_tokens:
                raise ValueError(
                    f"{path} has documents after token {num_tokens:,}, where its .bin ends; copy "
                    "both again"
                )
            sizes.append(size)
        if waiting >= _BLOCK_TOKENS:
            yield np.array(sizes, dtype=np.int64)
            sizes, waiting = [], 0
    if sizes:
        yield np.array(sizes, dtype=np.int64)


def _read_lists(path: Path) -> Iterator[Documents]:
    for lists in iterate_plain_pickle(path):
        for ids in lists:
            is_plain = isinstance(ids, list) and ids and all(type(id) is int for id in ids)
            if not is_plain or not 0 <= min(ids) <= max(ids) < 1 << 32:
                raise ValueError(f"{path} holds something else than lists of ids; copy it again")
        lengths = np.array(list(map(len, lists)), dtype=np.int64)
        yield np.array([id for ids in lists for id in ids], dtype=np.int64), lengths


def _write(
    target: Path,
    documents: dict[str, Iterable[Documents]],
    tokenizer: Tokenizer,
    *,
    path: Path,
    num_tokens: int | None = None,
) -> None:
    """Write a complete folder of token files, of `num_tokens` in all where that is known."""
    num_bytes = tokenizer.byte_counts()
    # A special token has as many bytes as characters here, and a name that is longer.
    num_characters = np.minimum([len(token) for token in tokenizer.tokens], num_bytes)
    files, report = {}, SourceReport(source=target.name)
    with new_folder(target) as folder:
        for name, pieces in documents.items():
            with TokenFileWriter(folder, name, vocab_size=tokenizer.vocab_size) as writer:
                for ids, lengths in pieces:
                    known = ids[ids < tokenizer.vocab_size]  # the writer refuses others
                    writer.write_documents(
                        ids,
                        lengths,
                        num_characters=int(num_characters[known].sum()),
                        num_bytes=int(num_bytes[known].sum()),
                    )
                    if name != SYSTEM_PROMPTS:
                        _report(report, ids, lengths, tokenizer, num_characters)
            files[name] = writer.summary
        _require_total(files, num_tokens, path)
        manifest = Manifest(
            vocabulary_sha256=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            source={"original": "DimensionGPT", "path": str(path)},
            dropped={},
            files=files,
        )
        write_report(folder, report)
        write_manifest(folder, manifest)


def _require_total(files: dict[str, TokenFileSummary], num_tokens: int | None, path: Path) -> None:
    found = sum(summary.num_tokens for summary in files.values())
    if num_tokens not in (None, found):
        raise ValueError(
            f"{path} holds {found:,} tokens and its metadata.pkl says {num_tokens:,}: files of two "
            "runs are mixed; copy them again"
        )


def _report(
    report: SourceReport, ids: Ids, lengths: Ids, tokenizer: Tokenizer, num_characters: Ids
) -> None:
    """Count documents, and look at the first ones of a piece."""
    ends = np.cumsum(lengths)
    characters = np.add.reduceat(num_characters[ids], ends - lengths)
    report.keep(np.maximum(characters, 1), lengths)
    for start, end in zip((ends - lengths)[:NUM_SAMPLES], ends, strict=False):
        text = tokenizer.decode(ids[start:end].tolist())
        report.observe(text, text)
