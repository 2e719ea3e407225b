"""Idempotency keys: a POST that is sent again under the same `Idempotency-Key` is answered as before, and not done twice."""

import hashlib
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any, cast

import structlog
from fastapi import Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from config.errors import SluiceError
from service.api.errors import ApiError
from service.api.tokens import check_token
from service.logs import redact
from service.store import Answer, Store

KEY = "Idempotency-Key"
LONGEST = 255  # characters of a key
REPLAYED = "Idempotency-Replayed"  # a header of an answer that was given before

log = structlog.get_logger(__name__)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def idempotency_key(
    key: Annotated[
        str | None,
        Header(
            alias=KEY,
            min_length=1,
            max_length=LONGEST,
            pattern=r"^[!-~]+$",
            description="Any text of your choice. The same request with the same key within a day is answered as the first time, and not carried out again.",
        ),
    ] = None,
) -> None:
    """A dependency that documents the header; the route reads it."""


class Once(APIRoute):
    """A route whose answers are remembered under the request's key, if it has one."""

    def get_route_handler(self) -> Handler:
        """The handler, which looks for an earlier answer first."""
        handle = super().get_route_handler()

        async def once(request: Request) -> Response:
            key, store = request.headers.get(KEY), cast("Store", request.app.state.store)
            if not key or len(key) > LONGEST or not await run_in_threadpool(_known, store, request):
                return await handle(request)
            caller = _digest(request.headers["Authorization"].encode())
            asked = _digest(request.method.encode(), request.url.path.encode(), await request.body())
            if (before := await run_in_threadpool(store.claim_answer, caller, key, asked)) is not None:
                return _replay(before, asked)
            try:
                answer = await handle(request)
            except (ApiError, SluiceError, RequestValidationError, HTTPException):  # it was refused; after anything else nobody knows what was done
                await run_in_threadpool(store.drop_answer, caller, key)
                raise
            kept = Answer(request=asked, status=answer.status_code, location=answer.headers.get("Location"), body=bytes(answer.body).decode())
            try:
                await run_in_threadpool(store.keep_answer, caller, key, kept)
            except SQLAlchemyError as error:  # it is done all the same, and who asked is told so
                log.warning("an answer is not kept", error=redact(str(error)))
            return answer

        return once


def _known(store: Store, request: Request) -> bool:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return kind.lower() == "bearer" and check_token(store, token.strip()) is not None


def _replay(before: Answer, asked: str) -> Response:
    if before.request != asked:
        message = f"This {KEY} was sent with another request before. Use a new key for each request, and the same only for the same."
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "key_used", message)
    if before.broken:
        message = (
            f"The first request with this {KEY} broke off, and whether it was carried out is not known. Look at the run, the list of runs or the watch list, "
            "and if it was not, send it again with a new key."
        )
        raise ApiError(HTTPStatus.CONFLICT, "outcome_unknown", message)
    if before.status is None:
        raise ApiError(HTTPStatus.CONFLICT, "in_progress", f"The first request with this {KEY} is still being carried out. Send it again in a moment.")
    headers = {REPLAYED: "true"} | ({"Location": before.location} if before.location else {})
    return Response(before.body, status_code=before.status, headers=headers, media_type="application/json")


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
