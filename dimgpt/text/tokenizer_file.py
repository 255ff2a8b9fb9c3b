"""Opens a tokenizer of either kind from its file."""

from pathlib import Path

from dimgpt.text.byte_level import ByteLevelTokenizer
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.tokenizer import Tokenizer

TOKENIZER_NAMES = (GreedyTokenizer.file_name, ByteLevelTokenizer.file_name)


def load_tokenizer_file(path: Path) -> Tokenizer:
    """Load `tokenizer.json`, or a vocabulary of DimensionGPT under any other name.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no tokenizer.
    """
    kind = ByteLevelTokenizer if path.suffix == ".json" else GreedyTokenizer
    return kind.load(path)
