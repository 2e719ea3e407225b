"""Copies large files so that neither copy ever reaches the other: sharing their blocks where the file system can, which takes no room."""

import fcntl
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

FICLONE = 0x40049409  # linux/fs.h: let the file share the other one's blocks until either is written to
PIECE = 2**22  # bytes read at once


def copy(source: Path, target: Path, heard: Callable[[int], None] = lambda count: None) -> str:
    """Make the new file `target` hold what `source` does, on disk when this returns; the hex sha256 of what it holds. `heard` is told bytes as they are done.

    Never a hard link: whoever edits one of the two in place, as tools that change a GGUF file's header do, would change the other. Raises OSError.
    """
    with source.open("rb") as reading, target.open("xb") as writing:
        try:
            fcntl.ioctl(writing.fileno(), FICLONE, reading.fileno())
        except OSError:  # another file system, or one that cannot
            digest = _digest(reading, heard, writing.write)
        else:
            with target.open("rb") as cloned:
                digest = _digest(cloned, heard)
        writing.flush()
        os.fsync(writing.fileno())
    return digest


def hashed(path: Path, heard: Callable[[int], None] = lambda count: None) -> str:
    """Hex sha256 of a file's bytes; `heard` is told how many as they are read. Raises OSError."""
    with path.open("rb") as file:
        return _digest(file, heard)


def _digest(file: io.BufferedReader, heard: Callable[[int], None], also: Callable[[bytes], object] = lambda piece: None) -> str:
    digest = hashlib.sha256()
    while piece := file.read(PIECE):
        digest.update(piece)
        also(piece)
        heard(len(piece))
    return digest.hexdigest()
