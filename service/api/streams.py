"""Endpoints that go on telling: a run as it changes, and a stage's log as it grows, as server-sent events."""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, cast

from anyio import sleep
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse, StreamingResponse

from config.settings import Settings
from service.api.access import TheRun, TheSettings, TheStore, caller
from service.api.errors import problems
from service.runs import logs
from service.runs.changing import GOING_ON, substance
from service.runs.summary import summary
from service.store import Store, TokenRecord
from service.store.database import now

LOOK_SECONDS = 1.0  # between two looks
ASKED_SECONDS = 10.0  # after which it is asked again whether the client may hear more: a token that is revoked ends no sooner
SILENCE_SECONDS = 15.0  # after which a comment shows that the line is alive
EVENT_STREAM = "text/event-stream"

Event = tuple[str, str]
"""Its name and its data."""

_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "The end of the log"}}
_EVENTS: dict[int | str, dict[str, Any]] = {200: {"content": {EVENT_STREAM: {"schema": {"type": "string"}}}, "description": "Events until the run has ended"}}

protected = APIRouter(tags=["progress"], dependencies=[Depends(caller)], responses=problems(401, 404, 422, 429))

StageName = Annotated[str, Path(min_length=1, max_length=200, pattern=r"^[^\x00]+$", description="A stage's name, as the run's stages tell it.")]
Tail = Annotated[int, Query(ge=0, le=2**24, description="Begin with so many bytes at the end of the log.")]


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = EVENT_STREAM


@protected.get("/runs/{id}/events", summary="A run as it goes on", response_class=EventStream, responses=_EVENTS)
async def follow_run(run: TheRun, request: Request, store: TheStore) -> EventStream:
    """An event `run` with the run's summary now and at each change, and `end` when it is carried out no more. Ends with the token as well."""
    return stream(request, run_changes(store, run.id), standing(request))


@protected.get("/runs/{id}/stages/{stage}/log", summary="What a stage said", response_class=PlainTextResponse, responses=_TEXT)
def get_log(run: TheRun, stage: StageName, store: TheStore, settings: TheSettings, tail: Tail = 65_536) -> PlainTextResponse:
    """The end of its log, without secrets. 404: the stage has no log on this machine."""
    return PlainTextResponse(logs.Reader(logs.find(store, settings, run.id, stage), settings, last=tail).read(ended=True))


@protected.get("/runs/{id}/stages/{stage}/log/events", summary="A stage's log as it grows", response_class=EventStream, responses=_EVENTS)
def follow_log(run: TheRun, stage: StageName, request: Request, store: TheStore, settings: TheSettings, tail: Tail = 65_536) -> EventStream:
    """An event `log` for new lines, without secrets, and `end` when the stage has ended. Ends with the token as well."""
    logs.find(store, settings, run.id, stage)
    return stream(request, log_changes(store, settings, run.id, stage, tail), standing(request))


def run_changes(store: Store, run: int) -> Iterator[Event | None]:
    """The run's summary at each change; None at each look that found none."""
    told = None
    while True:
        document = summary(store, run)
        if (found := substance(document)) != told:
            told = found
            yield "run", json.dumps(document)
        else:
            yield None
        if document["state"] not in GOING_ON:
            yield "end", json.dumps({"state": document["state"]})
            return


def log_changes(store: Store, settings: Settings, run: int, stage: str, tail: int) -> Iterator[Event | None]:
    """What is new in the log of a run's stage; None at each look that found nothing."""
    for text in logs.growing(store, settings, run, stage, last=tail):
        yield None if text is None else ("log", text)
    yield "end", "{}"


def standing(request: Request) -> Callable[[], bool]:
    """Asks again whether the token of a request that was let in still works."""
    store, token = cast("Store", request.app.state.store), cast("TokenRecord", request.state.token)
    return lambda: any(item.id == token.id and item.works(now()) for item in store.tokens())


def stream(request: Request, events: Iterator[Event | None], allowed: Callable[[], bool]) -> EventStream:
    """What `events` yields, one look a second, until it or the service ends, the client is gone, or is not `allowed` to hear it any more."""
    outermost = getattr(request.app.state, "outside", request.app)
    ending: Callable[[], bool] = getattr(outermost.state, "ending", lambda: False)
    return EventStream(_sent(events, ending, allowed), headers={"X-Accel-Buffering": "no"})


async def _sent(events: Iterator[Event | None], ending: Callable[[], bool], allowed: Callable[[], bool]) -> AsyncIterator[str]:
    spoken = asked = time.monotonic()
    while not ending():
        if time.monotonic() - asked >= ASKED_SECONDS:
            asked = time.monotonic()
            if not await run_in_threadpool(allowed):
                return
        event = await run_in_threadpool(next, events, ("", ""))
        if event is None:
            if time.monotonic() - spoken >= SILENCE_SECONDS:
                spoken = time.monotonic()
                yield ": still here\n\n"
            await sleep(LOOK_SECONDS)
        elif event[0] == "":
            return
        else:
            spoken = time.monotonic()
            yield rendered(*event)


def rendered(name: str, data: str) -> str:
    """An event as it goes over the line."""
    lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")  # a carriage return would end a line there, too
    return f"event: {name}\n" + "".join(f"data: {line}\n" for line in lines) + "\n"
