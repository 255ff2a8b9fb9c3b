"""How much room text and token files take, about, and whether the disk has it."""

import errno
import shutil
from pathlib import Path

from dimgpt.config import ConversationSourceConfig, SourceConfig
from dimgpt.data.preparing.listing import Listing
from dimgpt.data.token_file import token_dtype

# Four bytes of French are a token, two with a small vocabulary.
_SMALL_VOCABULARY = 4_000


def estimate_text_bytes(source: SourceConfig | ConversationSourceConfig, listing: Listing) -> int:
    """Return about how many bytes of text a source holds; what it says of itself comes first."""
    if isinstance(source, SourceConfig) and source.expected_bytes is not None:
        return min(source.expected_bytes, source.max_bytes or source.expected_bytes)
    return listing.text_bytes


def estimate_token_bytes(text_bytes: int, *, vocab_size: int) -> int:
    """Return about how many bytes the token files of some text take."""
    bytes_per_token = 2 if vocab_size < _SMALL_VOCABULARY else 4
    return text_bytes * token_dtype(vocab_size).itemsize // bytes_per_token


def free_bytes(folder: Path) -> int:
    """Return the room left on the disk where a folder is, or is to be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def require_room(folder: Path, num_bytes: int) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        OSError: About so many bytes do not fit.
    """
    free = free_bytes(folder)
    if num_bytes > free:
        raise OSError(
            errno.ENOSPC,
            f"the disk has {free / 1e9:,.1f} GB left and about {num_bytes / 1e9:,.1f} GB are "
            "needed; make room, or take another disk with data_root",
            str(folder),
        )
