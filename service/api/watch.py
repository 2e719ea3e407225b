"""Endpoints for the watch list: what the settings say, and entries that are added, changed and removed."""

from http import HTTPStatus

from fastapi import APIRouter, Depends, Response

from config.settings import Watched
from config.wire import API
from service.api.access import Administrator, Number, TheSettings, TheStore, everybodys
from service.api.behind import prefix
from service.api.errors import problems
from service.api.once import Once, idempotency_key
from service.api.tagging import StoreOfEntry, Tagged
from service.release.checks.watch import refuse_unusable
from service.release.listing import WatchEntry, WatchList, watch_entry, watch_list

router = APIRouter(tags=["watch list"], route_class=Tagged, dependencies=[Depends(everybodys)], responses=problems(401, 403, 422, 429))
acting = APIRouter(tags=["watch list"], route_class=Once, dependencies=[Depends(idempotency_key)], responses=problems(401, 422, 429))

_CHANGES = problems(400, 403, 404, 408, 409, 413)
_ENTRY = problems(404)


@router.get("/watch", summary="The watch list")
def get_watch(store: TheStore, settings: TheSettings) -> WatchList:
    """All entries, those of the settings first, and how the last poll went. Not for a token of some namespaces: what is watched is of none of them."""
    return watch_list(store, settings)


@acting.post("/watch", status_code=HTTPStatus.CREATED, summary="Watch more", responses=_CHANGES)
def add_watch(entry: Watched, response: Response, store: TheStore, settings: TheSettings, token: Administrator) -> WatchEntry:
    """Adds an entry, which counts from the next poll on. 422: it follows nothing, or no recipe has that name. Needs the scope `admin`, of all namespaces."""
    refuse_unusable(entry, settings)
    record = store.add_watch(entry, by=token.name)
    response.headers["Location"] = f"{prefix()}{API}/watch/{record.id}"
    return watch_entry(record)


@router.get("/watch/{id}", summary="An entry that was added beside the settings", responses=_ENTRY)
def get_watch_entry(id: Number, store: TheStore) -> WatchEntry:
    """The entry of that number. Not for a token of some namespaces."""
    return watch_entry(store.watch_entry(id))


@router.put(
    "/watch/{id}",
    summary="Change an entry that was added beside the settings",
    responses=_CHANGES | problems(412),
)
def change_watch(id: Number, entry: Watched, store: StoreOfEntry, settings: TheSettings, token: Administrator) -> WatchEntry:
    """Replaces the whole entry. Needs the scope `admin`, of all namespaces."""
    refuse_unusable(entry, settings)
    return watch_entry(store.change_watch(id, entry, by=token.name))


@router.delete(
    "/watch/{id}",
    status_code=HTTPStatus.NO_CONTENT,
    summary="Watch no more what was added beside the settings",
    responses=_CHANGES | problems(412),
)
def remove_watch(id: Number, store: StoreOfEntry, token: Administrator) -> None:
    """Takes the entry off the list; runs that it led to stay. Needs the scope `admin`, of all namespaces."""
    store.remove_watch(id, by=token.name)
