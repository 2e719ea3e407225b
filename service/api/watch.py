"""Endpoints for the watch list: what the settings say, and entries that are added, changed and removed over the network."""

import re
from datetime import datetime
from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from config.settings import Settings, Watched
from service.api.access import Administrator, Number, TheSettings, TheStore, caller
from service.api.errors import ApiError, problems
from service.api.once import Once, idempotency_key
from service.api.runs import RECIPE_NAME
from service.release.checks.watch import fault
from service.store import WatchRecord

router = APIRouter(tags=["watch list"], dependencies=[Depends(caller)], responses=problems(401, 422, 429))
acting = APIRouter(tags=["watch list"], route_class=Once, dependencies=[Depends(idempotency_key)], responses=problems(401, 422, 429))

_CHANGES = problems(400, 403, 404, 408, 409, 413)
_ENTRY = problems(404)


class WatchEntry(BaseModel):
    """An entry of the watch list, and whether it can be released."""

    id: int | None
    """Null for one of the settings, which only their file changes."""
    source: Literal["settings", "api"]
    entry: Watched
    error: str | None
    """What is wrong with its recipe; null when nothing is."""
    by: str | None
    """The token that added it."""
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


@router.get("/watch", summary="The watch list")
def get_watch(store: TheStore, settings: TheSettings) -> WatchList:
    """All entries, those of the settings first, and how the last poll went."""
    own = [WatchEntry(id=None, source="settings", entry=item, error=fault(item.recipe), by=None, created=None) for item in settings.watch]
    added = [_told(item) for item in store.watch_entries()]
    return WatchList(entries=[*own, *added], listings=[Listing(**vars(item)) for item in store.listings()])


@acting.post("/watch", status_code=HTTPStatus.CREATED, summary="Watch more", responses=_CHANGES)
def add_watch(entry: Watched, response: Response, store: TheStore, settings: TheSettings, token: Administrator) -> WatchEntry:
    """Adds an entry, which counts from the next poll on. 422: it follows nothing, or no recipe has that name. Needs the scope `admin`."""
    _refuse_unusable(entry, settings)
    record = store.add_watch(entry, by=token.name)
    response.headers["Location"] = f"/api/v1/watch/{record.id}"
    return _told(record)


@router.get("/watch/{id}", summary="An entry that was added over the network", responses=_ENTRY)
def get_watch_entry(id: Number, store: TheStore) -> WatchEntry:
    """The entry of that number."""
    return _told(store.watch_entry(id))


@router.put("/watch/{id}", summary="Change an entry that was added over the network", responses=_CHANGES)
def change_watch(id: Number, entry: Watched, store: TheStore, settings: TheSettings, token: Administrator) -> WatchEntry:
    """Replaces the whole entry. Needs the scope `admin`."""
    _refuse_unusable(entry, settings)
    return _told(store.change_watch(id, entry, by=token.name))


@router.delete("/watch/{id}", status_code=HTTPStatus.NO_CONTENT, summary="Watch no more what was added over the network", responses=_CHANGES)
def remove_watch(id: Number, store: TheStore, token: Administrator) -> None:
    """Takes the entry off the list; runs that it led to stay. Needs the scope `admin`."""
    store.remove_watch(id, by=token.name)


def _told(record: WatchRecord) -> WatchEntry:
    return WatchEntry(id=record.id, source="api", entry=record.entry, error=fault(record.entry.recipe), by=record.by, created=record.created)


def _refuse_unusable(entry: Watched, settings: Settings) -> None:
    if entry.recipe not in {item.recipe for item in settings.watch} and not re.fullmatch(RECIPE_NAME, entry.recipe):
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", "`recipe` must be the name of a recipe, not a path.")
    if (error := fault(entry.recipe)) is not None:
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "unusable_recipe", error)
