"""Brings what a stage reports from its own process to the service, and no more often than a person can follow."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from threading import Lock

from config.progress import Listener, Progress, heard_by
from service.repeating import repeated

EVERY = 0.5  # seconds between two reports that are handed on


@contextmanager
def written_to(path: Path) -> Iterator[None]:
    """Keep the latest of what the block reports in a file.

    A thread writes it, so that a report costs the stage nothing, and one before a long silence is seen while the silence lasts.
    """
    latest: list[Progress] = []
    written: list[Progress] = []

    def hear(progress: Progress) -> None:
        latest[:] = [progress]

    def write() -> bool:
        if latest and latest != written:
            written[:] = latest
            with suppress(OSError):  # a full disk is the stage's own to stumble over
                _replace(path, written[0])
        return True

    with heard_by(hear):
        try:
            with repeated(write, seconds=EVERY, name="progress"):
                yield
        finally:
            write()


def _replace(path: Path, progress: Progress) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(asdict(progress)), encoding="utf-8")
    unfinished.replace(path)


def read(path: Path) -> Progress | None:
    """What `written_to` wrote last, None when there is nothing yet or nothing that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        total = found["total"]
        return Progress(done=int(found["done"]), total=None if total is None else int(total), unit=str(found["unit"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


@contextmanager
def paced(listener: Listener) -> Iterator[Listener]:
    """A listener for the block, of any thread, that hands on to `listener` the first report, then one every so often, and the last."""
    lock = Lock()
    kept: list[Progress] = []
    told = [float("-inf")]

    def hear(progress: Progress) -> None:
        with lock:
            kept[:] = [progress]
            if time.monotonic() - told[0] >= EVERY / 2:  # what comes at EVERY from a stage's process passes, be it a little early
                hand_on()

    def hand_on() -> None:
        told[0] = time.monotonic()
        listener(kept.pop())

    yield hear
    with lock:
        if kept:
            hand_on()
