"""The content of files, each stored once under its sha256, whoever's it is."""

import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from hub.disk import Root
from hub.errors import BadRequest, TooLarge

BLOCK: Final = 1 << 20  # bytes read or written at a time


def hash_file(path: Path) -> str:
    """The sha256 of a file, read block by block."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Objects:
    """The folder `objects/<first two digits>/<sha256>`."""

    root: Root

    def path(self, sha256: str) -> Path:
        """Where the object is, or would be."""
        return self.root.path / "objects" / sha256[:2] / sha256

    def size(self, sha256: str) -> int | None:
        """The object's size in bytes, or None if there is no such object."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def add(self, data: bytes) -> str:
        """Store `data` and return its sha256."""
        sha256 = hashlib.sha256(data).hexdigest()
        if self.size(sha256) is None:
            self.root.write(self.path(sha256), data)
        return sha256

    def adopt(self, temporary: Path, sha256: str) -> None:
        """Make a temporary file, already verified, the object `sha256`."""
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        self.root.publish(temporary, self.path(sha256))

    def collect(self, held: Collection[str]) -> int:
        """Remove every object that is not in `held`; return how many. Only while nothing is being uploaded."""
        removed = 0
        for path in (self.root.path / "objects").glob("??/*"):
            if path.name not in held:
                path.unlink()
                removed += 1
        return removed


class Incoming:
    """An object on its way in: written to a temporary file and hashed as it comes, stored only if size and sha256 are as announced."""

    def __init__(self, objects: Objects, sha256: str, size: int) -> None:
        self._objects, self._sha256, self._size = objects, sha256, size
        self._path = objects.root.temporary()
        self._hash = hashlib.sha256()
        self._received = 0

    def __enter__(self) -> "Incoming":
        self._file = self._path.open("xb")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, block: bytes) -> None:
        """Take the next bytes. Raises TooLarge when there are more than announced."""
        self._received += len(block)
        if self._received > self._size:
            raise TooLarge(f"The upload of {self._sha256} is longer than the {self._size} bytes that were announced.")
        self._hash.update(block)
        self._file.write(block)

    def store(self) -> None:
        """Verify and keep the object. Raises BadRequest when bytes are missing or are not those that were announced."""
        if self._received != self._size:
            raise BadRequest(f"The upload of {self._sha256} ended after {self._received} of {self._size} bytes.")
        if self._hash.hexdigest() != self._sha256:
            raise BadRequest(f"The uploaded bytes have sha256 {self._hash.hexdigest()}, not {self._sha256} as announced.")
        self._file.flush()
        self._objects.adopt(self._path, self._sha256)
