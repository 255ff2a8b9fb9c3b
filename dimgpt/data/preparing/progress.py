"""How far the preparation of a source is, as a record for whoever shows it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far the preparation of a source is."""

    source: str
    """Its name."""
    num_documents: int
    """Documents written so far, those of finished parts included."""
    num_characters: int
    """Characters of their cleaned text."""
    text_bytes: int
    """Bytes of text that were read so far."""
    file_bytes: int
    """Bytes of its files, compressed as they are, that were read so far."""
    total_file_bytes: int
    """Bytes of all its files; 0 if that is not known."""
    disk_free: int
    """Bytes left on the disk."""
