"""One error body for everything that can go wrong, from a wrong path to a Hub that is down: a problem document as RFC 9457 has it."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from config.errors import ConfigurationError, HubError, PublishConflict, SluiceError, Superseded, UpstreamError
from config.wire import KINDS, PROBLEM
from service.logs import redact
from service.release.library import UnknownRecipe
from service.release.redoing import RedoRefused
from service.release.rollback import RollbackRefused
from service.release.unpublishing import UnpublishRefused
from service.runs.artifacts import ArtifactGone, NoArtifact
from service.runs.logs import NoLog
from service.runs.recipe import NoRecipe
from service.runs.report import NoReport
from service.store import ApprovalRefused, SteeringRefused, UnknownEntry, UnknownPublication, UnknownRun, WaiverRefused
from service.store.database import is_away

log = structlog.get_logger(__name__)

_SAID = {
    400: "The body is not what it has to be",
    401: "No token that works came with the request",
    403: "The token lacks a scope, or may not see that namespace",
    404: "There is no such thing, or the token may not see it",
    408: "The body took too long",
    409: "As it is now, that cannot be done",
    410: "It was there, and is not kept any more",
    412: "It is not as If-Match says",
    413: "The body is too large",
    416: "The file has no such bytes",
    422: "The request is not valid",
    429: "Too many wrong tokens, secrets or signatures came from this address; Retry-After tells when to try again",
    502: "The Hub is down, or refuses the service's token",
    503: "The service cannot do that at present: its database does not answer, or too many ask at once; Retry-After tells when to try again",
}

AWAY_SECONDS = 5  # after which a request that the database did not answer may be made again
_LATER = {429, 503}  # statuses that come with Retry-After
_RETRY_AFTER = {"Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "string", "example": "10"}}}

_REFUSED: Mapping[type[SluiceError], tuple[HTTPStatus, str]] = {
    ApprovalRefused: (HTTPStatus.CONFLICT, "not_held"),
    WaiverRefused: (HTTPStatus.CONFLICT, "not_waivable"),
    SteeringRefused: (HTTPStatus.CONFLICT, "not_now"),
    RollbackRefused: (HTTPStatus.CONFLICT, "not_rolled_back"),
    RedoRefused: (HTTPStatus.UNPROCESSABLE_ENTITY, "unknown_stage"),
    Superseded: (HTTPStatus.CONFLICT, "superseded"),
    UnpublishRefused: (HTTPStatus.UNPROCESSABLE_ENTITY, "invalid"),
    ArtifactGone: (HTTPStatus.GONE, "not_kept"),
}
"""How what somebody asked for in vain is answered."""


class Problem(BaseModel):
    """The body of every answer with a status from 400 on."""

    type: str = Field(examples=[f"{KINDS}not_found"])
    """The kind of problem as a URI: `urn:sluice:problem:` and the code."""
    title: str = Field(examples=["Not Found"])
    """The status in words."""
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no run 12. `sluice status` lists the runs there are."])
    """What is wrong, where, and what to do: a sentence for people."""
    code: str = Field(examples=["not_found"])
    """A word for programs."""
    request_id: str = Field(examples=["4f0c9f1e2d3b4a5c8e7f6a5b4c3d2e1f"])
    """The same as in the X-Request-Id header and in the service's log."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses as a route declares them."""
    content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _SAID[status], "content": content, **({"headers": _RETRY_AFTER} if status in _LATER else {})} for status in statuses}


class ApiError(Exception):
    """An answer with this status, code and message."""

    def __init__(self, status: HTTPStatus, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


def response(request_id: str, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The problem as a response."""
    phrase = HTTPStatus(status).phrase
    body = Problem(type=f"{KINDS}{code}", title=phrase, status=status, detail=redact(message), code=code, request_id=request_id)
    return JSONResponse(body.model_dump(), status_code=status, headers=dict(headers or {}), media_type=PROBLEM)


def away(error: SQLAlchemyError) -> ApiError:
    """The answer while the database cannot be asked. Raises the error where something else is wrong, which is a bug."""
    if not is_away(error):
        raise error
    message = "The service's database does not answer at present, and nothing was changed. Try again in a while; `/health` tells whether it answers."
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "database_away", message, {"Retry-After": str(AWAY_SECONDS)})


def status_of(error: SluiceError) -> tuple[HTTPStatus, str]:
    """The status and code that tell an expected error.

    404: the Hub or the store does not know it. 409: it is there but cannot be used as it is (gated, no safetensors, …).
    422: the recipe is not one. 502: the Hub is down or refuses our token.
    """
    if (refused := _REFUSED.get(type(error))) is not None:
        return refused
    unknown = isinstance(error.__cause__, (RepositoryNotFoundError, RevisionNotFoundError)) and not isinstance(error.__cause__, GatedRepoError)
    match error:
        case UnknownRun() | UnknownPublication() | UnknownEntry() | UnknownRecipe() | NoReport() | NoRecipe() | NoLog() | NoArtifact():
            return HTTPStatus.NOT_FOUND, "not_found"
        case UpstreamError() if unknown:
            return HTTPStatus.NOT_FOUND, "unknown_upstream"
        case UpstreamError():
            return HTTPStatus.CONFLICT, "unusable_upstream"
        case PublishConflict():
            return HTTPStatus.CONFLICT, "publish_conflict"
        case HubError():
            return HTTPStatus.BAD_GATEWAY, "hub_failed"
        case ConfigurationError():
            return HTTPStatus.UNPROCESSABLE_ENTITY, "unusable_recipe"
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR, "failed"


def install(app: FastAPI) -> None:
    """Answer every kind of error with the one body."""

    @app.exception_handler(ApiError)
    def api_error(request: Request, error: ApiError) -> JSONResponse:
        return response(request.state.request_id, error.status, error.code, str(error), error.headers)

    @app.exception_handler(SluiceError)
    def expected(request: Request, error: SluiceError) -> JSONResponse:
        return response(request.state.request_id, *status_of(error), str(error))

    @app.exception_handler(SQLAlchemyError)
    def database(request: Request, error: SQLAlchemyError) -> JSONResponse:
        found = away(error)
        log.warning("the database does not answer", error=redact(str(error)))
        return response(request.state.request_id, found.status, found.code, str(found), found.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
        return response(request.state.request_id, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", f"The request is not valid: {found}.")

    @app.exception_handler(HTTPException)
    def plain(request: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        return response(request.state.request_id, status, status.name.lower(), error.detail or status.phrase, error.headers)
