"""The ASGI application: addresses to functions, refusals to answers."""

import asyncio
import errno
import functools
import hashlib
import inspect
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from hub import pages
from hub.call import Call, identify, parse_json, read_body
from hub.core import Hub
from hub.errors import BadRequest, NoSpace, NotFound, Refusal, RepoHidden, RepoNotFound
from hub.names import KINDS
from hub.routes import Address, account, commit, community, files, lfs, registry, repos

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
FORM: Final = "application/x-www-form-urlencoded"

logger = logging.getLogger("hub")


class _Kind(StringConvertor):
    regex = "|".join(KINDS)


class _Xet(StringConvertor):
    regex = "xet-(?:read|write)-token"


register_url_convertor("kind", _Kind())
register_url_convertor("xet", _Xet())


def make_app(hub: Hub) -> ASGIApp:
    """The application that serves `hub`."""
    tables = (repos.ROUTES, files.ROUTES, registry.ROUTES, lfs.ROUTES, commit.ROUTES, community.ROUTES, account.ROUTES, pages.ROUTES)
    addresses = [address for table in tables for address in table] + [Address(method, "/{rest:path}", unknown) for method in METHODS]
    routes = [Route(address.pattern, _endpoint(hub, address.answer), methods=[address.method]) for address in addresses]
    return _Raw(Starlette(routes=routes))


def unknown(call: Call) -> Any:
    """Anything else. What looks like a repo is answered as a repo that is not there, which the client tells apart from a missing page."""
    address = call.request.scope["path"]
    nameless = address.count("/") == 3 and address.startswith(tuple(f"/api/{kind}/" for kind in KINDS))
    if nameless or "/resolve/" in address:
        raise (RepoNotFound if call.identity else RepoHidden)("Repository not found")
    if any(part in (".", "..") for part in unquote(address).split("/")):
        raise BadRequest("An address cannot contain '.' or '..'.")
    raise NotFound("This embedded Hub has nothing at this address.")


def _endpoint(hub: Hub, answer: Callable[[Call], Any] | Callable[[Call], Awaitable[Any]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            call = Call(hub=hub, request=request, identity=identify(hub, request))
            if inspect.iscoroutinefunction(answer):
                result = await answer(call)
            else:
                if request.method not in ("GET", "HEAD"):
                    call = Call(hub=hub, request=request, identity=call.identity, body=await _body(request))
                result = await run_in_threadpool(answer, call)
        except Refusal as refusal:
            return refused(refusal)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return refused(NoSpace("The disk that this Hub keeps its files on is full. Nothing was changed; make room and try again."))
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        response = result if isinstance(result, Response) else JSONResponse(result)
        return _conditional(request, response) if request.method == "GET" and isinstance(response, JSONResponse) else response

    return functools.wraps(answer)(endpoint)


def _conditional(request: Request, response: JSONResponse) -> Response:
    """The same answer with a digest of it, as the Hub gives, or in a word that it is what the caller knows already."""
    etag = f'W/"{hashlib.sha1(response.body, usedforsecurity=False).hexdigest()}"'
    if etag in request.headers.get("if-none-match", "").split(", "):
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return response


def refused(refusal: Refusal) -> Response:
    """The answer to a request that is refused, in the headers that the client library reads and in JSON."""
    message = " ".join(str(refusal).split())
    headers = {"X-Error-Message": message.encode("ascii", "replace").decode(), **refusal.headers}
    if refusal.code:
        headers["X-Error-Code"] = refusal.code
    return JSONResponse({"error": message, **refusal.body}, status_code=refusal.status, headers=headers)


async def _body(request: Request) -> Any:
    data = await read_body(request)
    if request.headers.get("content-type", "").partition(";")[0].strip() != FORM:
        return parse_json(data)
    try:
        return parse_qs(data.decode(), max_num_fields=10_000)
    except ValueError:
        raise BadRequest("The body is not a form.") from None


class _Raw:
    """Routes on the address as it was sent, in which a revision such as refs%2Fpr%2F1 is one part; names each answer by an id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        identity = secrets.token_hex(8)

        async def named(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", identity.encode())]
            await send(message)

        scope["path"] = scope["raw_path"].decode("ascii", "replace")
        try:
            await self._app(scope, receive, named)
        except asyncio.CancelledError:
            raise
        except Exception:
            # The answer was a bare 500; the client shows the same id.
            logger.exception("request failed: id=%s method=%s", identity, scope["method"])
