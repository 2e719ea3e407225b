"""What a stage prints, kept with its beginning and its end: a program that prints without end does not fill the disk.

A log is a file of plain text. One that became too long holds `HEAD` bytes, a line that tells how many are left out, always as long and always there, and what
came last. Places in a log count all that was ever printed, so that whoever follows one reads on across a cut.
"""

import os
import re
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import IO, BinaryIO, Self

HEAD = 2**20  # bytes of the beginning that are kept
TAIL = 2**22  # bytes of the end that are kept, up to twice as many for a while
BREATH = 0.01  # seconds between two pieces of a log that is cut already: no stage needs to print so much so fast
_PIECE = 65_536  # bytes
_LOOK = 0.1  # seconds between two looks whether a stage has ended whose output somebody keeps open
_LAST = 64  # pieces that are taken of such a one at its end


def _gap(left_out: int) -> bytes:
    return f"\n[{left_out:>23,} bytes are left out here]\n".encode()


_GAP = re.compile(rb"\n\[ *([\d,]+) bytes are left out here\]\n")
_WIDTH = len(_gap(0))


class Log:
    """A log that is written, begun anew."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._file = path.open("wb", buffering=0)
        self._there = 0  # bytes of the file
        self.left_out = 0  # bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, piece: bytes) -> None:
        """Add what was printed. What the disk has no room for is lost: who prints is not stopped, and what is to be kept tells of the full disk."""
        with suppress(OSError):
            while piece:
                written = self._file.write(piece) or 0
                self._there, piece = self._there + written, piece[written:]
            if self._there > HEAD + _WIDTH + 2 * TAIL:
                self._cut()

    def _cut(self) -> None:
        """Leave out what is neither at the beginning nor at the end, in whole lines where there are any: half a secret is not known for one."""
        with self._path.open("rb") as file:
            head = file.read(HEAD)
            file.seek(-TAIL, os.SEEK_END)
            tail = file.read()
        tail = tail[tail.find(b"\n") + 1 :]
        if not self.left_out and (whole := head.rfind(b"\n") + 1):
            head = head[:whole].ljust(HEAD)
        printed = self._there if not self.left_out else self._there - _WIDTH + self.left_out
        left_out = printed - HEAD - len(tail)
        new = self._path.with_name(f"{self._path.name}.partial")
        try:
            new.write_bytes(head + _gap(left_out) + tail)
            opened = new.open("ab", buffering=0)  # before anything is given up: who prints must not be stopped
            new.replace(self._path)  # who reads has the old file or the new one
        finally:
            new.unlink(missing_ok=True)
        self._file.close()
        self._file = opened
        self._there, self.left_out = HEAD + _WIDTH + len(tail), left_out


@contextmanager
def printed(path: Path) -> Iterator[IO[bytes]]:
    """What is written to the yielded file goes into the log, also by a process that is given it; after the block all of it is there."""
    reading, writing = os.pipe()
    over = Event()
    with Log(path) as log:
        thread = Thread(target=_carry, args=(reading, log, over), name=f"log {path.stem}", daemon=True)
        thread.start()
        try:
            with os.fdopen(writing, "wb", buffering=0) as stream:
                yield stream
        finally:
            over.set()
            thread.join()


def _carry(reading: int, log: Log, over: Event) -> None:
    """Take what comes until nobody can send more, or the stage is `over` and whoever left it sends nothing, or too much."""
    left = _LAST
    with os.fdopen(reading, "rb", buffering=0) as source:
        waiting = select.poll()
        waiting.register(source, select.POLLIN)
        while left:
            if waiting.poll(_LOOK * 1000):
                if not (piece := source.read(_PIECE)):
                    return
                log.write(piece)
                if log.left_out:
                    over.wait(BREATH)
                left -= over.is_set()
            elif over.is_set():
                return


def length(file: BinaryIO) -> int:
    """Bytes that were printed, of which an open log holds all or some."""
    size, left_out = os.fstat(file.fileno()).st_size, _left_out(file)
    return size - _WIDTH + left_out if left_out else size


def since(file: BinaryIO, place: int) -> tuple[bytes, int]:
    """What an open log holds of what was printed from a place on, and the place behind it. For what is left out a line stands that says so."""
    left_out = _left_out(file)
    begin = place
    if left_out:
        begin = min(place, HEAD) if place < HEAD + left_out else place - left_out + _WIDTH
    file.seek(begin)
    found = file.read()
    end = begin + len(found)
    return found, end - _WIDTH + left_out if left_out else end


def _left_out(file: BinaryIO) -> int:
    file.seek(HEAD)
    said = _GAP.fullmatch(file.read(_WIDTH))
    return 0 if said is None else int(said[1].replace(b",", b""))
