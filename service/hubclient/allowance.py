"""How much time a call to the Hub may take in what is done at the moment: the poller's, the API's and a run's are not the same."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from config.errors import SluiceError


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What calls of this thread, or of this task, may take."""

    patience: float = 0.0  # seconds that one call waits for faults of the moment to pass
    told: Callable[[str], None] = lambda said: None  # hears of such a wait
    until: float | None = None  # of the monotonic clock: no call lasts longer
    over: Callable[[], SluiceError] | None = None  # what is raised then

    @property
    def left(self) -> float | None:
        """Seconds until then; None where nothing is set."""
        return None if self.until is None else self.until - time.monotonic()

    def check(self) -> None:
        """Raise what is to be raised when the time is over."""
        if self.over is not None and self.until is not None and time.monotonic() >= self.until:
            raise self.over()


_in_force: ContextVar[Allowance] = ContextVar("allowance", default=Allowance())  # noqa: B039  it is frozen


def allowance() -> Allowance:
    """What is allowed here."""
    return _in_force.get()


@contextmanager
def patient(seconds: float, told: Callable[[str], None] = lambda said: None) -> Iterator[None]:
    """In the block, calls to the Hub wait so long for faults of the moment to pass, each; `told` hears of it."""
    before = _in_force.set(replace(allowance(), patience=seconds, told=told))
    try:
        yield
    finally:
        _in_force.reset(before)


@contextmanager
def within(seconds: float, over: Callable[[], SluiceError]) -> Iterator[None]:
    """All calls to the Hub in the block together last no longer than that; then `over` is raised."""
    now, outer = time.monotonic(), allowance()
    if outer.until is not None and outer.until <= now + seconds:
        yield
        return
    before = _in_force.set(replace(outer, until=now + seconds, over=over))
    try:
        yield
    finally:
        _in_force.reset(before)
