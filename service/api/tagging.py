"""ETags: whether what a client knows is still so, told without sending it again, and changes that count only then.

A tag has two parts. The first is of all that somebody decided or that came of work; the second of the whole answer, in which the clock goes on while a run is
carried out. `If-None-Match` compares whole tags, `If-Match` the first part: a run that has only gone on for a second may still be cancelled.
"""

import hashlib
import json
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Header, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from service.api.access import Administrator, Number, ThePublication, TheRun, TheStore
from service.api.errors import ApiError
from service.release.listing import watch_entry
from service.runs.changing import substance
from service.runs.summary import publication_summary, summarize
from service.store import Kind, Store

LENGTH = 20  # hexadecimal digits of each part
ANY = "*"

IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        max_length=1000,
        description="Do it only if the thing is still as it was when its GET answered with this ETag; else the answer is 412.",
    ),
]


class Tagged(APIRoute):
    """A route whose JSON answers to GET carry an ETag, and are not sent again to who knows them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, which compares what it would answer."""
        handle = super().get_route_handler()

        async def tagged(request: Request) -> Response:
            answer = await handle(request)
            if request.method != "GET" or answer.status_code != HTTPStatus.OK or answer.media_type != "application/json":
                return answer
            tag = tag_of(bytes(answer.body))
            if named(request.headers.get("If-None-Match"), tag):
                return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag})
            answer.headers["ETag"] = tag
            return answer

        return tagged


def tag_of(body: bytes) -> str:
    """The ETag of a JSON answer."""
    return f'"{_version(json.loads(body))}-{_digest(body)}"'


def unchanged_run(run: TheRun, store: TheStore, if_match: IfMatch = None) -> Store:
    """A dependency: the store, which writes only if the run is as the request says. Raises the 412 answer, and so does the first write."""
    return _unchanged(store, if_match, Thing("run", run.id, f"Run {run.id}", lambda seen: summarize(seen, run.id)))


def unchanged_publication(publication: ThePublication, store: TheStore, if_match: IfMatch = None) -> Store:
    """A dependency: the same of a publication."""
    number = publication.id
    return _unchanged(store, if_match, Thing("publication", number, f"Publication {number}", lambda seen: publication_summary(seen.publication(number))))


def unchanged_entry(id: Number, store: TheStore, token: Administrator, if_match: IfMatch = None) -> Store:
    """A dependency: the same of an entry of the watch list, of which nobody learns who may not change it."""
    return _unchanged(store, if_match, Thing("entry", id, f"Entry {id} of the watch list", lambda seen: watch_entry(seen.watch_entry(id))))


class Thing(NamedTuple):
    """What a request is about."""

    kind: Kind
    id: int
    told: str
    found: Callable[[Store], BaseModel]  # as its GET answers


def _unchanged(store: Store, wanted: str | None, thing: Thing) -> Store:
    if wanted is None or wanted.strip() == ANY:
        return store

    def check(seen: Store) -> None:
        version = _version(thing.found(seen).model_dump(mode="json"))
        if version not in {_opaque(item).partition("-")[0] for item in wanted.split(",") if not item.strip().startswith("W/")}:
            message = f"{thing.told} is not as it was any more. Look at it again, and decide anew."
            raise ApiError(HTTPStatus.PRECONDITION_FAILED, "changed", message)

    check(store)  # before the Hub is asked for anything, and before it is said that the thing is in no state for that
    return store.provided(thing.kind, thing.id, check)


def named(header: str | None, tag: str) -> bool:
    """Whether an If-None-Match names the tag; a weak one of the same text counts."""
    if header is None:
        return False
    return header.strip() == ANY or _opaque(tag) in {_opaque(item.strip().removeprefix("W/")) for item in header.split(",")}


def _opaque(tag: str) -> str:
    return tag.strip().strip('"')


def _version(document: Any) -> str:
    """The digest of what is said, without what the clock alone changes."""
    timed = isinstance(document, dict) and {"stages", "coming", "left"} <= document.keys()
    return _digest(json.dumps(substance(document) if timed else document, sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:LENGTH]


UNCHANGED_PUBLICATION = Depends(unchanged_publication)
StoreOfRun = Annotated[Store, Depends(unchanged_run)]
StoreOfPublication = Annotated[Store, Depends(unchanged_publication)]
StoreOfEntry = Annotated[Store, Depends(unchanged_entry)]
