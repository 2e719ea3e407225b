"""Keeps the disk from filling up: tidies once an hour, and at once when space is short; forgets old records once a day."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import structlog

from config.errors import ClusterUnavailable
from config.settings import Settings
from service.disk.pruning import prune
from service.disk.records import forget
from service.disk.space import space
from service.execution.artifacts import DAYS, ArtifactStore
from service.hubclient.traffic import traffic
from service.pulse import pulse
from service.repeating import repeated
from service.store import Store

LOOK_SECONDS = 20.0  # between two looks at the disk
TIDY_SECONDS = 3600.0  # between two collections while there is space
FORGET_SECONDS = 86_400.0  # between two times that old records are forgotten
AGAIN_SECONDS = 3600.0  # from one that failed to the next: it may have taken long, and others waited for it
SILENT_SECONDS = 3600.0  # that one look may take: what is thrown away may be many files of a slow disk or store
PART = "housekeeping"
AHEAD_SECONDS = 86_400.0  # that the clock may be ahead of the Hub's: by one that is further, what is new seems old

log = structlog.get_logger(__name__)


class Housekeeping:
    """What is done about the disk."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._tidied: float | None = None  # when the last collection ended
        self._forget_at = 0.0  # when old records are forgotten the next time
        self.failing = False  # whether they could not be, the last time

    def look(self) -> None:
        """Look at the disk, and throw away what may go if that is due or space is short; forget old records if that is due."""
        there, ahead = space(self._settings), traffic.ahead > AHEAD_SECONDS
        due = self._tidied is None or time.monotonic() - self._tidied >= TIDY_SECONDS
        if ahead and due:
            log.error("the clock is ahead of the Hub's, so nothing is thrown away for its age: set it right", seconds=round(traffic.ahead))
            self._tidied = time.monotonic()
        if there.lacking or (due and not ahead):
            pulse.beat(PART, "prune")
            pruned = prune(self._store, self._settings, lacking=there.lacking, paused=there.paused)
            self._tidied = time.monotonic()
            if pruned.gone:
                details = {"things": len(pruned.gone), "bytes": pruned.freed, "short_of": there.lacking}
                log.info("pruned", **details)
                self._store.audit("housekeeping", "disk", "pruned", details)
            self._sweep()
        if not ahead and time.monotonic() >= self._forget_at:
            self.failing, self._forget_at = True, time.monotonic() + AGAIN_SECONDS
            self._forget()
            self.failing, self._forget_at = False, time.monotonic() + FORGET_SECONDS

    def _sweep(self) -> None:
        """Throw away what lies in the store of a cluster for long; one that is away now is swept an hour later."""
        if self._settings.executor != "ray" or self._settings.store_url is None:
            return
        pulse.beat(PART, "sweep")
        try:
            swept = ArtifactStore(self._settings.store_url).sweep(datetime.now(UTC) - timedelta(days=DAYS))
        except ClusterUnavailable as error:
            log.warning("not swept", store=self._settings.store_url, error=str(error))
        else:
            log.info("swept", store=self._settings.store_url, files=swept)

    def _forget(self) -> None:
        pulse.beat(PART, "forget")
        forgotten = forget(self._store, self._settings)
        if forgotten.counts:
            log.info("forgotten", **forgotten.counts, database=forgotten.bytes)
            self._store.audit("housekeeping", "database", "forgotten", {**forgotten.counts, "bytes": forgotten.bytes})

    def may_begin(self) -> bool:
        """Whether there is space enough for another run."""
        return not space(self._settings).paused


@contextmanager
def tidied(housekeeping: Housekeeping) -> Iterator[None]:
    """Look at the disk again and again until the block ends; that this is alive, and whether it fails, shows in health."""

    def look() -> bool:
        try:
            housekeeping.look()
        except Exception:  # whatever it is, the next look may find it gone, and nobody else keeps the disk from filling up
            log.exception("not pruned")
            pulse.beat(PART, failing=True)
        else:
            pulse.beat(PART, failing=housekeeping.failing)
        return True

    with pulse.part(PART, limit=SILENT_SECONDS), repeated(look, seconds=LOOK_SECONDS, name=PART):
        yield
