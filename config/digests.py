"""sha256 digests of files and folders: how the project says "the same bytes"."""

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(path: Path) -> str:
    """Hex sha256 of a file, or of a folder's relative names and file digests (symbolic links are not followed)."""
    if path.is_file():
        return file_sha256(path)
    lines = [f"{file_sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in sorted(path.rglob("*")) if file.is_file() and not file.is_symlink()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
