"""Files of the same content are on the disk once: the first is kept under its sha256, and others become further names of it.

Nothing may write to any of these files afterwards. Where a file system knows no hard links, every file stays one of its own.
"""

import os
import re
import uuid
from contextlib import suppress
from pathlib import Path

from config.digests import file_sha256

_SHA256 = re.compile(r"[0-9a-f]{64}")

LEAST = 65_536  # bytes of a file that is worth it


def share(path: Path, sha256: str, blobs: Path) -> None:
    """Make the file one with what is kept under its digest in the folder `blobs`, or keep it there if it is the first; whoever takes it compares its bytes."""
    size = path.stat().st_size
    if size < LEAST or _SHA256.fullmatch(sha256) is None:  # a stranger may have said what the digest is
        return
    blob = blobs / sha256
    with suppress(OSError):  # no hard links here, or too many of this one: then it is a copy
        if not blob.exists():
            _name(path, blob)
        elif not path.samefile(blob):
            whole = blob.stat().st_size == size and file_sha256(blob) == sha256
            _name(blob, path) if whole else _name(path, blob)


def take(target: Path, sha256: str, blobs: Path) -> bool:
    """Make `target` a name of what is kept under a digest; False where nothing is, or where it is damaged, which is then not kept any more."""
    if _SHA256.fullmatch(sha256) is None:
        return False
    blob = blobs / sha256
    try:
        os.link(blob, target)
    except OSError:
        return False
    if file_sha256(target) == sha256:
        return True
    target.unlink()
    blob.unlink(missing_ok=True)
    return False


def unused(blobs: Path) -> list[Path]:
    """What is kept and has no other name."""
    found = []
    for blob in blobs.iterdir() if blobs.is_dir() else ():
        with suppress(FileNotFoundError):
            if blob.stat().st_nlink == 1:
                found.append(blob)
    return found


def _name(source: Path, target: Path) -> None:
    """Make `target`, whatever was there, a further name of `source`, at once."""
    beside = target.with_name(f".{target.name[:64]}.{uuid.uuid4().hex[:8]}")
    os.link(source, beside)
    try:
        beside.replace(target)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
