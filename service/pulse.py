"""What the parts of this program are at, and since when each was last heard of: one that is silent for longer than it may be is stuck, and health says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Lock


@dataclass(frozen=True, kw_only=True)
class Sign:
    """The last sign of life of a part."""

    part: str  # "poll", "intake", "worker", …
    doing: str  # what it was at; empty when it waited for something to do
    since: datetime
    limit: float  # seconds that it may be silent

    @property
    def stuck(self) -> bool:
        """Whether it has been silent for longer."""
        return (datetime.now(UTC) - self.since).total_seconds() > self.limit


class Pulse:
    """The signs of all parts that are there. For any number of threads."""

    def __init__(self) -> None:
        self._signs: dict[str, Sign] = {}
        self._lock = Lock()

    @contextmanager
    def part(self, name: str, *, limit: float) -> Iterator[None]:
        """A part of that name, there for as long as the block lasts, which may be silent for so many seconds."""
        with self._lock:
            self._signs[name] = Sign(part=name, doing="", since=datetime.now(UTC), limit=limit)
        try:
            yield
        finally:
            with self._lock:
                self._signs.pop(name, None)

    def beat(self, name: str, doing: str = "") -> None:
        """A sign of life; of a part that is not there nothing."""
        with self._lock:
            if (sign := self._signs.get(name)) is not None:
                self._signs[name] = replace(sign, doing=doing, since=datetime.now(UTC))

    def signs(self) -> tuple[Sign, ...]:
        """The last of every part."""
        with self._lock:
            return tuple(self._signs.values())


pulse = Pulse()
"""Of this program."""
