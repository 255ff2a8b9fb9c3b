import string
from pathlib import Path

import numpy as np
import pytest

from dimgpt.data.token_file import Manifest, write_manifest
from dimgpt.data.token_writer import TokenFileWriter
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.special_tokens import SPECIAL_TOKENS

FINGERPRINT = "f" * 64


@pytest.fixture(scope="session")
def tokenizer() -> GreedyTokenizer:
    """A vocabulary of single characters and a few words."""
    characters = string.ascii_letters + string.digits + " .,?!'"
    return GreedyTokenizer([*SPECIAL_TOKENS, *characters, " le", " la", "chat", " chat"])


@pytest.fixture
def write_files():
    """Return a function that writes a finished folder: split name -> documents of ids."""

    def write(folder: Path, splits: dict[str, list[list[int]]], *, vocab_size: int = 100) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for name, documents in splits.items():
            with TokenFileWriter(folder, name, vocab_size=vocab_size) as writer:
                ids = np.array([id for document in documents for id in document], dtype=np.int64)
                lengths = np.array([len(document) for document in documents], dtype=np.int64)
                writer.write_documents(ids, lengths, num_characters=1, num_bytes=1)
            files[name] = writer.summary
        manifest = Manifest(
            vocabulary_sha256=FINGERPRINT,
            vocab_size=vocab_size,
            source={},
            dropped={},
            files=files,
        )
        write_manifest(folder, manifest)
        return folder

    return write
