"""What every request passes first: a number of its own, limits on its body, headers on its answer, and a line in the log."""

import asyncio
import time
import uuid
from http import HTTPStatus

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.wire import LEVEL, LEVEL_HEADER
from service.api import errors

MAX_BODY = 256 * 1024  # bytes
BODY_SECONDS = 20.0  # from the first to the last byte of a body

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    LEVEL_HEADER: str(LEVEL),
}
_CLOSED = "default-src 'none'; frame-ancestors 'none'"
_ALONE = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"  # a page that brings its style along
_POLICIES = {"docs": _ALONE, "report": _ALONE}  # by the last part of a path
_DASHBOARD = "/ui"  # where pages are that load style and script from here, and send forms here
_PAGES = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

log = structlog.get_logger(__name__)


class _Refused(Exception):
    """The body is not accepted."""

    def __init__(self, status: HTTPStatus, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class _Gone(Exception):
    """Who asked has hung up before all of the body was there: half a request is none, and nobody waits for an answer."""


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Guard one HTTP request; anything else passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.monotonic()
        status: int | None = None
        policy = _policy(scope["path"].removeprefix(scope.get("root_path", "")))  # before the dashboard makes itself the root

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update({**_HEADERS, "X-Request-Id": request_id, "Content-Security-Policy": policy})
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, _replayed(await _read(scope, receive), receive), answer)
            except _Gone:
                pass
            except _Refused as refusal:
                await errors.response(request_id, refusal.status, refusal.code, str(refusal), {"Connection": "close"})(scope, receive, answer)
            except Exception:
                log.exception("request failed", method=scope["method"], path=scope["path"])
                if status is None:
                    message = "The service failed at this request. Its log tells more under the request id."
                    await errors.response(request_id, HTTPStatus.INTERNAL_SERVER_ERROR, "internal", message)(scope, receive, answer)
            finally:
                log.info("request", method=scope["method"], path=scope["path"], status=status, seconds=round(time.monotonic() - began, 4))


def _policy(path: str) -> str:
    """What a page at that path may load."""
    return _POLICIES.get(path.rpartition("/")[2], _PAGES if f"{path}/".startswith(f"{_DASHBOARD}/") else _CLOSED)


async def _read(scope: Scope, receive: Receive) -> bytes:
    """The whole body, whether its length was announced or not. Raises _Refused when it is too large or too slow, _Gone when it breaks off."""
    too_large = _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", f"The body is larger than {MAX_BODY // 1024} KiB.")
    announced = Headers(scope=scope).get("content-length", "0")
    if announced.isdigit() and int(announced) > MAX_BODY:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _Gone
                body += message.get("body", b"")
                if len(body) > MAX_BODY:
                    raise too_large
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise _Refused(HTTPStatus.REQUEST_TIMEOUT, "too_slow", f"The body took longer than {BODY_SECONDS:.0f} seconds.") from error


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Hands out the body that was read already, then whatever comes after it."""
    unread = True

    async def replay() -> Message:
        nonlocal unread
        if unread:
            unread = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay
