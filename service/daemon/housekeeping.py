"""Keeps the disk from filling up: tidies once an hour, and at once when space is short."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from config.settings import Settings
from service.disk.pruning import prune
from service.disk.space import space
from service.repeating import repeated
from service.store import Store

LOOK_SECONDS = 20.0  # between two looks at the disk
TIDY_SECONDS = 3600.0  # between two collections while there is space

log = structlog.get_logger(__name__)


class Housekeeping:
    """What is done about the disk."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._tidied: float | None = None  # when the last collection ended

    def look(self) -> None:
        """Look at the disk, and throw away what may go if that is due or space is short."""
        there = space(self._settings)
        if there.lacking or self._tidied is None or time.monotonic() - self._tidied >= TIDY_SECONDS:
            pruned = prune(self._store, self._settings, lacking=there.lacking)
            self._tidied = time.monotonic()
            if pruned.gone:
                details = {"things": len(pruned.gone), "bytes": pruned.freed, "short_of": there.lacking}
                log.info("pruned", **details)
                self._store.audit("housekeeping", "disk", "pruned", details)

    def may_begin(self) -> bool:
        """Whether there is space enough for another run."""
        return not space(self._settings).paused


@contextmanager
def tidied(housekeeping: Housekeeping) -> Iterator[None]:
    """Look at the disk again and again until the block ends."""

    def look() -> bool:
        try:
            housekeeping.look()
        except Exception:  # whatever it is, the next look may find it gone, and nobody else keeps the disk from filling up
            log.exception("not pruned")
        return True

    with repeated(look, seconds=LOOK_SECONDS, name="housekeeping"):
        yield
