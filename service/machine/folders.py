"""Folders that may not be there yet."""

from pathlib import Path


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists: what its disk is."""
    return next(path for path in (folder, *folder.parents) if path.exists())
