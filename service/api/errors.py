"""One error body for everything that can go wrong, from a wrong path to a Hub that is down."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from config.errors import ConfigurationError, HubError, SluiceError, Superseded, UpstreamError
from service.logs import redact
from service.release.rollback import RollbackRefused
from service.runs.report import NoReport
from service.store import ApprovalRefused, UnknownEntry, UnknownPublication, UnknownRun


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str
    """A word for programs, e.g. `not_found`."""
    message: str
    """A sentence for people."""
    request_id: str
    """The same as in the X-Request-Id header and in the service's log."""


class ErrorBody(BaseModel):
    """The body of every answer with a status from 400 on."""

    error: ErrorDetail


class ApiError(Exception):
    """An answer with this status, code and message."""

    def __init__(self, status: HTTPStatus, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


def response(request_id: str, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The error body as a response."""
    body = ErrorBody(error=ErrorDetail(code=code, message=redact(message), request_id=request_id))
    return JSONResponse(body.model_dump(), status_code=status, headers=dict(headers or {}))


def status_of(error: SluiceError) -> tuple[HTTPStatus, str]:
    """The status and code that tell an expected error.

    404: the Hub or the store does not know it. 409: it is there but cannot be used as it is (gated, no safetensors, …).
    422: the recipe is not one. 502: the Hub is down or refuses our token.
    """
    unknown = isinstance(error.__cause__, (RepositoryNotFoundError, RevisionNotFoundError)) and not isinstance(error.__cause__, GatedRepoError)
    match error:
        case UnknownRun() | UnknownPublication() | UnknownEntry() | NoReport():
            return HTTPStatus.NOT_FOUND, "not_found"
        case ApprovalRefused():
            return HTTPStatus.CONFLICT, "not_held"
        case RollbackRefused():
            return HTTPStatus.CONFLICT, "not_rolled_back"
        case Superseded():
            return HTTPStatus.CONFLICT, "superseded"
        case UpstreamError() if unknown:
            return HTTPStatus.NOT_FOUND, "unknown_upstream"
        case UpstreamError():
            return HTTPStatus.CONFLICT, "unusable_upstream"
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

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        problems = "; ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
        return response(request.state.request_id, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", f"The request is not valid: {problems}.")

    @app.exception_handler(HTTPException)
    def plain(request: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        return response(request.state.request_id, status, status.name.lower(), error.detail or status.phrase, error.headers)
