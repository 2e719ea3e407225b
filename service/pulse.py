"""What the parts of this program are at, and since when each was last heard of: one that is silent for longer than it may be is stuck, and health says so."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock


@dataclass(frozen=True, kw_only=True)
class Sign:
    """The last sign of life of a part."""

    part: str  # "poll", "intake", "worker", …
    doing: str  # what it was at; empty when it waited for something to do
    limit: float  # seconds that it may be silent
    failing: bool  # whether its work failed for a reason that nobody foresaw, the last time
    since: datetime
    heard: float  # the same by a clock that nobody sets

    @property
    def stuck(self) -> bool:
        """Whether it has been silent for longer."""
        return time.monotonic() - self.heard > self.limit


class Pulse:
    """The signs of all parts that are there. For any number of threads."""

    def __init__(self) -> None:
        self._signs: dict[str, Sign] = {}
        self._lock = Lock()

    @contextmanager
    def part(self, name: str, *, limit: float) -> Iterator[None]:
        """A part of that name, there for as long as the block lasts, which may be silent for so many seconds."""
        with self._lock:
            self._signs[name] = _sign(name, limit=limit)
        try:
            yield
        finally:
            with self._lock:
                self._signs.pop(name, None)

    def beat(self, name: str, doing: str = "", *, failing: bool = False) -> None:
        """A sign of life; of a part that is not there nothing."""
        with self._lock:
            if (sign := self._signs.get(name)) is not None:
                self._signs[name] = _sign(name, doing, limit=sign.limit, failing=failing)

    def signs(self) -> tuple[Sign, ...]:
        """The last of every part."""
        with self._lock:
            return tuple(self._signs.values())


def _sign(part: str, doing: str = "", *, limit: float, failing: bool = False) -> Sign:
    return Sign(part=part, doing=doing, limit=limit, failing=failing, since=datetime.now(UTC), heard=time.monotonic())


pulse = Pulse()
"""Of this program."""
