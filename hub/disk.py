"""Writing that survives a kill: every file appears whole, under its final name, or not at all."""

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hub.errors import RootError


def now() -> str:
    """The present moment as the Hub writes dates: UTC, microseconds, `Z`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Root:
    """The folder that a Hub lives in. No name from outside ever becomes part of a path below it."""

    path: Path

    def prepare(self) -> None:
        """Make the folder if there is none."""
        (self.path / "tmp").mkdir(parents=True, exist_ok=True)

    def temporary(self, name: str | None = None) -> Path:
        """A path for a file that is not ready to be seen; swept when the Hub starts."""
        return self.path / "tmp" / (name or secrets.token_hex(16))

    def sweep(self) -> None:
        """Remove what uploads and writes left behind when they were killed."""
        for leftover in (self.path / "tmp").iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def publish(self, temporary: Path, target: Path) -> None:
        """Rename a temporary file, whose content is synced already, to `target`, and make the name durable."""
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            sync_folder(target.parent.parent)
        temporary.replace(target)
        sync_folder(target.parent)

    def write(self, target: Path, data: bytes, *, mode: int = 0o644) -> None:
        """Replace `target` by `data`, atomically and durably."""
        temporary = self.temporary()
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self.publish(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def locked(self, name: str, *, wait: float = 0.0) -> Iterator[None]:
        """Hold an exclusive lock on the file `name`, which the operating system releases even after a kill.

        Raises RootError when another process still holds it after `wait` seconds.
        """
        deadline = time.monotonic() + wait
        with (self.path / name).open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError as error:
                    if time.monotonic() >= deadline:
                        raise RootError(f"{self.path} is in use by another Hub process. Stop that one, or give this one a root folder of its own.") from error
                    time.sleep(0.02)
            yield
