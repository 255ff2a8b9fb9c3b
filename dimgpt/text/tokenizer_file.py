"""Opens a tokenizer of either kind from its file."""

from pathlib import Path

from dimgpt.text.byte_level import ByteLevelTokenizer
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.tokenizer import Tokenizer

TOKENIZER_FILES = {
    "greedy": GreedyTokenizer.file_name,
    "byte_level": ByteLevelTokenizer.file_name,
}
"""Kind of a tokenizer -> name of its file in a folder."""


def load_tokenizer_file(path: Path) -> Tokenizer:
    """Load `tokenizer.json`, or a vocabulary of DimensionGPT under any other name.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no tokenizer.
    """
    kind = ByteLevelTokenizer if path.suffix == ".json" else GreedyTokenizer
    return kind.load(path)
