"""The watch list as it is shown: every entry, what is wrong with its recipe, and how its owners' repos were listed."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel

from config.settings import Settings, Watched
from service.release.checks.watch import fault
from service.store import Store, WatchRecord


class WatchEntry(BaseModel):
    """An entry of the watch list, and whether it can be released."""

    id: int | None
    """Null for one of the settings, which only their file changes."""
    source: Literal["settings", "api"]
    """Where it stands: in the settings, or in the database, to which the API and `sluice watch` add."""
    entry: Watched | None
    """Null where this version cannot read what is kept."""
    error: str | None
    """What is wrong with it or its recipe; null when nothing is."""
    by: str | None
    """The token that added it; `command` where that was done on the service's machine."""
    created: datetime | None


class Listing(BaseModel):
    """How the repos of an owner were listed at the last poll."""

    owner: str
    repos: int
    at: datetime
    error: str | None


class WatchList(BaseModel):
    """Everything that is watched."""

    entries: list[WatchEntry]
    listings: list[Listing]


def watch_list(store: Store, settings: Settings) -> WatchList:
    """All entries, those of the settings first, and how the last poll went."""
    own = [WatchEntry(id=None, source="settings", entry=item, error=fault(item.recipe), by=None, created=None) for item in settings.watch]
    added = [watch_entry(item) for item in store.watch_entries()]
    return WatchList(entries=[*own, *added], listings=[Listing(**vars(item)) for item in store.listings()])


def watch_entry(record: WatchRecord) -> WatchEntry:
    """An entry that was added beside the settings."""
    error = record.error if record.entry is None else fault(record.entry.recipe)
    return WatchEntry(id=record.id, source="api", entry=record.entry, error=error, by=record.by, created=record.created)
