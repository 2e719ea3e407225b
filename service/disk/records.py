"""Keeps the database from growing for ever: forgets old records as the settings say, and gives their space back."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from config.keep import Keep
from config.settings import Settings
from service.store import Horizons, Store

WORDS = {  # of each kind of record, for one and for several
    "events": ("audit event", "audit events"),
    "messages": ("message", "messages"),
    "recipes": ("recipe", "recipes"),
    "requests": ("answered request", "answered requests"),
    "runs": ("run", "runs"),
    "sessions": ("session", "sessions"),
    "steps": ("step of a run", "steps of runs"),
}


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What was forgotten, or would be."""

    counts: Mapping[str, int]  # by kind of record, see `WORDS`; none that is 0
    bytes: int  # that the database takes now

    @property
    def told(self) -> str:
        """In words: "3 runs, 1 message"; "no records" where there are none."""
        return ", ".join(f"{count:,} {WORDS[kind][count != 1]}" for kind, count in self.counts.items()) or "no records"


def forget(store: Store, settings: Settings, *, dry_run: bool = False, now: datetime | None = None) -> Forgotten:
    """Forget what is older than the settings under `keep` say. While no run is at work, space that became free goes back to the disk.

    What has been held for so long, and has a newer run in its place, ends: that is told before it is forgotten, which it is the next time.
    """
    beyond = horizons(settings.keep, now or datetime.now(UTC))
    counts = store.forget(beyond, dry_run=dry_run)
    if not dry_run:
        store.give_up_old(beyond.runs)
    if not dry_run and not store.runs(limit=1, state="running"):
        store.compact()
    return Forgotten(counts=counts, bytes=store.size())


def horizons(keep: Keep, now: datetime) -> Horizons:
    """The ages that the settings name, as times."""
    return Horizons(runs=now - timedelta(days=keep.run_days), messages=now - timedelta(days=keep.message_days), audit=now - timedelta(days=keep.audit_days))
