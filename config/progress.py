"""How far a piece of work has come, said from wherever it is done and heard by whoever asked for it.

A stage says `report(3, 40, "windows")`, or counts its way through something with `counted`; without a listener that costs nothing and does nothing.
The listener is the caller's: a stage's own process writes to a file, the service hands on to its database and display.
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Lock
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """So much of a whole, in a unit that a person can count."""

    done: int
    total: int | None  # None where nobody knows how much there is
    unit: str  # plural: "windows", "tensors", "questions", "tokens", "bytes"


Listener = Callable[[Progress], None]

_listener: ContextVar[Listener | None] = ContextVar("progress", default=None)


def report(done: int, total: int | None, unit: str) -> None:
    """Say how far the work at hand has come."""
    if (listener := _listener.get()) is not None:
        listener(Progress(done=done, total=total, unit=unit))


def counted(items: Iterable[T], unit: str, *, total: int | None = None) -> Iterator[T]:
    """The items one by one; each is reported as done when the next is asked for. `total` when they have no length of their own."""
    whole = len(items) if total is None and isinstance(items, Sized) else total
    report(0, whole, unit)
    for done, item in enumerate(items, start=1):
        yield item
        report(done, whole, unit)


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Let `listener` hear what this context's code reports until the block ends."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def within(done: int, total: int | None, unit: str) -> Iterator[None]:
    """Let what the block reports count towards a larger whole, of which so much was done before the block."""
    if (listener := _listener.get()) is None:
        yield
        return
    with heard_by(lambda part: listener(Progress(done=done + part.done, total=total, unit=unit))):
        yield


class Tally:
    """Counts what is done bit by bit, in any thread, and reports it to whoever listens where the tally was made."""

    def __init__(self, total: int | None, unit: str) -> None:
        self._listener = _listener.get()  # threads that others start have a context of their own
        self._lock = Lock()
        self._done, self._total, self._unit = 0, total, unit
        self.add(0)

    def add(self, count: int) -> None:
        """So much more is done; less when it is negative, of what has to be done again."""
        with self._lock:
            self._done += count
            if self._listener is not None:
                self._listener(Progress(done=self._done, total=self._total, unit=self._unit))
