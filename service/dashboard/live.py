"""Parts of pages as they change: the browser gets them whole, and puts each in the place of the one before."""

from collections.abc import Callable, Iterator
from typing import Any

from fastapi import APIRouter, Request

from service.api.access import Number, TheSettings, TheStore
from service.api.streams import Event, EventStream, log_changes, stream
from service.dashboard import views
from service.dashboard.deeds import seen
from service.dashboard.rendering import fragment
from service.dashboard.signing import TheVisitor, Visitor, signed_in
from service.runs import logs
from service.runs.changing import GOING_ON

LOG_BYTES = 16 * 1024  # of a log that are sent first

router = APIRouter()


@router.get("/live")
def overview(request: Request, visitor: TheVisitor, store: TheStore, settings: TheSettings) -> EventStream:
    """What is at work and what waits."""
    changes = _changes("board.html.j2", visitor, lambda: {"board": views.board(store, settings, visitor)}, lambda values: True)
    return stream(request, changes, signed_in(request))


@router.get("/runs/{id}/live")
def run(id: Number, request: Request, visitor: TheVisitor, store: TheStore, settings: TheSettings) -> EventStream:
    """How far a run has come."""
    seen(store, visitor, id)

    def going_on(values: dict[str, Any]) -> bool:
        return values["view"].summary.state in GOING_ON

    return stream(request, _changes("progress.html.j2", visitor, lambda: {"view": views.progress(store, settings, id)}, going_on), signed_in(request))


@router.get("/runs/{id}/logs/{stage}/live")
def log(id: Number, stage: str, request: Request, visitor: TheVisitor, store: TheStore, settings: TheSettings) -> EventStream:
    """A stage's log as it grows."""
    seen(store, visitor, id)
    logs.find(store, settings, id, stage)
    return stream(request, log_changes(store, settings, id, stage, LOG_BYTES), signed_in(request))


def _changes(template: str, visitor: Visitor, values: Callable[[], dict[str, Any]], going_on: Callable[[dict[str, Any]], bool]) -> Iterator[Event | None]:
    """The part at each change; `end` once it will not change any more."""
    told = None
    while True:
        found = values()
        text = fragment(template, visitor, **found)
        if text != told:
            yield "fragment", text
        told = text
        if not going_on(found):
            yield "end", "{}"
            return
        yield None
