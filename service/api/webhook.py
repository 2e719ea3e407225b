"""Where the Hub's webhooks arrive. A payload is only a hint that a watched repo changed: nothing in it is believed but the repo's name."""

import hmac
import json
import re
from http import HTTPStatus
from typing import Any, Literal

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from config.settings import REPO_ID, Settings
from service.api.access import TheHinting, TheSettings, TheStore, refuse_flood
from service.api.errors import ApiError, problems

router = APIRouter(tags=["webhooks"])

SCOPE = "repo.content"

log = structlog.get_logger(__name__)


class Receipt(BaseModel):
    """What became of the payload."""

    status: Literal["accepted", "ignored"]


@router.post(
    "/webhooks/huggingface",
    status_code=HTTPStatus.ACCEPTED,
    summary="The Hub says that a repo changed",
    responses={200: {"model": Receipt, "description": "It says nothing that matters here"}, **problems(400, 401, 408, 413, 429, 503)},
)
async def huggingface(request: Request, response: Response, hinting: TheHinting, store: TheStore, settings: TheSettings) -> Receipt:
    """Notes that a watched repo's content changed (202) and answers at once; anything else that the Hub may say is ignored (200).

    The X-Webhook-Secret header must hold the configured secret: 401 when it does not, 503 when none is configured. Wrong ones are limited
    for each address and stand in the audit trail; the right one is never refused for them.
    """
    if not _knows_secret(request, settings):
        await run_in_threadpool(refuse_flood, request, store)
        message = "X-Webhook-Secret does not hold the secret of this service."
        raise ApiError(HTTPStatus.UNAUTHORIZED, "unauthorized", message, {"WWW-Authenticate": "X-Webhook-Secret"})
    repo = _changed_repo(await request.body())
    if repo is None or not await hinting.put(repo):
        response.status_code = HTTPStatus.OK
        return Receipt(status="ignored")
    log.info("webhook accepted", repo=repo)
    return Receipt(status="accepted")


def _knows_secret(request: Request, settings: Settings) -> bool:
    """Whether the request holds the configured secret. Raises the 503 answer when there is none."""
    secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else ""
    if not secret:
        message = "This service takes no webhooks: its operator set no SLUICE_WEBHOOK_SECRET."
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "webhooks_off", message)
    given = request.headers.get("X-Webhook-Secret", "").encode("latin-1")
    return hmac.compare_digest(given, secret.encode())


def _changed_repo(body: bytes) -> str | None:
    """The model repo whose content changed, or None when the payload tells something else. Raises the 400 answer when it is no JSON object."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(HTTPStatus.BAD_REQUEST, "invalid", "The body is not JSON.") from error
    if not isinstance(payload, dict):
        raise ApiError(HTTPStatus.BAD_REQUEST, "invalid", "The body is not a JSON object.")
    event, repo = _object(payload, "event"), _object(payload, "repo")
    scope, name = event.get("scope"), repo.get("name")
    content = isinstance(scope, str) and (scope == SCOPE or scope.startswith(f"{SCOPE}."))
    return name if content and repo.get("type") == "model" and isinstance(name, str) and re.fullmatch(REPO_ID, name) else None


def _object(payload: dict[str, Any], key: str) -> dict[str, Any]:
    value = payload.get(key)
    return value if isinstance(value, dict) else {}
