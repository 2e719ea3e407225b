"""Where somebody asks, by a signed request, that the newest commit of a watched repo is released again: after new tools, data or doubts."""

import hashlib
import hmac
import re
import time
from datetime import timedelta
from http import HTTPStatus

import structlog
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from config.files import explain
from config.settings import REPO_ID, Settings
from config.signing import SIGNATURE, TIMESTAMP, sign
from service.api.access import TheSettings, TheStore, refuse_flood
from service.api.errors import ApiError, problems
from service.release.watchlist import entries, following
from service.store import Replayed, Store

router = APIRouter(tags=["webhooks"])

WINDOW = 300  # seconds that a timestamp may differ from the service's clock

log = structlog.get_logger(__name__)


class _Forged(Exception):
    """Whoever sent the request did not show that he knows the secret."""


class Rebuild(BaseModel):
    """What is to be released again."""

    model_config = ConfigDict(extra="forbid")

    repo: str = Field(pattern=REPO_ID)
    """`owner/name` of a watched repo."""


class RebuildReceipt(BaseModel):
    """The request was taken."""

    status: str = "accepted"
    repo: str


@router.post(
    "/webhooks/rebuild",
    status_code=HTTPStatus.ACCEPTED,
    summary="Release a watched repo again",
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": Rebuild.model_json_schema()}}}},
    responses=problems(401, 404, 408, 409, 413, 422, 429, 503),
)
async def rebuild(request: Request, store: TheStore, settings: TheSettings) -> RebuildReceipt:
    """Notes that the newest commit of a watched repo is to be released again (202): what tools, recipe and data did not change is reused.

    `X-Sluice-Timestamp` is the time in whole seconds since 1970, `X-Sluice-Signature` is `sha256=` and the hexadecimal HMAC-SHA256 of the timestamp, a dot and
    the body under SLUICE_REBUILD_SECRET. 401: wrong signature, or a timestamp more than 300 seconds off. 404: not watched. 409: this request came before.
    Wrong signatures are limited for each address and stand in the audit trail; the right one is never refused for them.
    """
    body = await request.body()
    try:
        signature = _checked(request, settings, body)
    except _Forged as error:
        await run_in_threadpool(refuse_flood, request, store)
        raise _refused(str(error)) from error
    try:
        wanted = Rebuild.model_validate_json(body)
    except ValidationError as error:
        raise ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", f"The body is not valid: {explain(error, Rebuild)}.") from error
    await run_in_threadpool(_keep, store, settings, wanted.repo, signature)
    log.info("rebuild accepted", repo=wanted.repo)
    return RebuildReceipt(repo=wanted.repo)


def _checked(request: Request, settings: Settings, body: bytes) -> str:
    """The request's signature, which is good. Raises _Forged, and the 401 answer to what was signed at another time, or 503."""
    secret = settings.rebuild_secret.get_secret_value() if settings.rebuild_secret else ""
    if not secret:
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "webhooks_off", "This service takes no rebuild requests: its operator set no SLUICE_REBUILD_SECRET.")
    timestamp, given = request.headers.get(TIMESTAMP, ""), request.headers.get(SIGNATURE, "")
    if not re.fullmatch(r"[0-9]{1,12}", timestamp):
        raise _Forged(f"{TIMESTAMP} must be the time in whole seconds since 1970.")
    if not hmac.compare_digest(given.encode("latin-1"), sign(secret, int(timestamp), body).encode()):
        raise _Forged(f"{SIGNATURE} is not `sha256=` and the HMAC-SHA256 of the timestamp, a dot and the body under the secret of this service.")
    if abs(off := int(timestamp) - int(time.time())) > WINDOW:
        raise _refused(f"{TIMESTAMP} is {abs(off)} seconds {'ahead of' if off > 0 else 'behind'} this service's clock, and {WINDOW} are allowed. Sign it anew.")
    return given


def _refused(message: str) -> ApiError:
    return ApiError(HTTPStatus.UNAUTHORIZED, "unauthorized", message, {"WWW-Authenticate": SIGNATURE})


def _keep(store: Store, settings: Settings, repo: str, signature: str) -> None:
    """Leave the hint, once for each signature. Raises the 404 and 409 answers."""
    if not following(entries(store, settings), repo):
        message = f"{repo} is not on the watch list. Add it, or release it by POST /api/v1/runs."
        raise ApiError(HTTPStatus.NOT_FOUND, "not_watched", message)
    try:
        store.ask_to_rebuild(repo, hashlib.sha256(signature.encode()).hexdigest(), keep=timedelta(seconds=2 * WINDOW))
    except Replayed as error:
        raise ApiError(HTTPStatus.CONFLICT, "replayed", str(error)) from error
