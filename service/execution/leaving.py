"""Where work may be left: it asks, again and again, whether it still is to be done, and whoever had it begun answers by raising."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from config.errors import Unavailable

Asked = Callable[[bool], None]
"""Told whether all that was begun is whole; raises what the work is left by."""

_asked: ContextVar[Asked | None] = ContextVar("asked", default=None)


class Left(BaseException):
    """The work is left off, by nobody's fault. Not an Exception: a stage must not take it for its own failure."""


class Away(Left):
    """What carries the work out cannot be reached at the moment."""

    def __init__(self, reason: Unavailable) -> None:
        super().__init__(str(reason))
        self.reason = reason


@contextmanager
def left_by(asked: Asked) -> Iterator[None]:
    """Let `asked` decide at each checkpoint of this context's code until the block ends."""
    token = _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(token)


@contextmanager
def left_also_by(asked: Asked) -> Iterator[None]:
    """Let `asked` decide as well, before whoever decides already."""
    before = _asked.get()

    def both(whole: bool) -> None:
        asked(whole)
        if before is not None:
            before(whole)

    with left_by(both):
        yield


def checkpoint(*, whole: bool = False) -> None:
    """A place where the work may be left; `whole` where nothing that was begun would have to be done again."""
    if (asked := _asked.get()) is not None:
        asked(whole)
