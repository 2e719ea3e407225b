"""Which finished outputs a process uses, so that no other one throws them away meanwhile: a list in a file that is locked as long as the process lives.

The kernel unlocks the file of a process that was killed, so nobody has to tidy up after it. Whoever uses an output pins it before looking whether it is there;
whoever throws one away does so behind the closed gate, through which every pin goes: either it sees the pin, or the other finds the output gone.
"""

import fcntl
import os
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock


class Pins:
    """The outputs that the holder of this object uses."""

    def __init__(self, folder: Path) -> None:
        """Pins of all processes lie in `folder`, which is made when the first one is set."""
        self.folder = folder
        self._file = folder / f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._keys: set[str] = set()
        self._lock = Lock()  # stages may be at work in several threads
        self._close: weakref.finalize[..., Pins] | None = None
        self._descriptor = -1

    def add(self, key: str) -> None:
        """Use an output from now on, whether it is there or not."""
        with self._lock:
            if key in self._keys:
                return
            with _gate(self.folder, fcntl.LOCK_SH):
                if self._close is None:
                    self._descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                    fcntl.flock(self._descriptor, fcntl.LOCK_EX)
                    self._close = weakref.finalize(self, _remove, self._descriptor, self._file)
                os.write(self._descriptor, f"{key}\n".encode())
            self._keys.add(key)

    def close(self) -> None:
        """Use none any more."""
        self._keys.clear()
        if self._close is not None:
            self._close()
            self._close = None


def _remove(descriptor: int, file: Path) -> None:
    file.unlink(missing_ok=True)
    os.close(descriptor)


@contextmanager
def closed_gate(folder: Path) -> Iterator[frozenset[str]]:
    """What living processes use; nobody begins to use anything until the block ends."""
    with _gate(folder, fcntl.LOCK_EX):
        yield frozenset(key for file in folder.iterdir() if file.name != _GATE for key in _read(file))


_GATE = "gate"


@contextmanager
def _gate(folder: Path, kind: int) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / _GATE, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


def _read(file: Path) -> list[str]:
    """The pins in a file; none, and the file removed, where nobody holds it any more."""
    with suppress(FileNotFoundError), file.open(encoding="ascii") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return stream.read().split()
        file.unlink(missing_ok=True)
    return []
