"""Behind a reverse proxy: under which prefix the service is seen, and who the client is, which only trusted proxies are believed about."""

import ipaddress
from collections.abc import Sequence
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

_prefix: ContextVar[str] = ContextVar("prefix", default="")


def prefix() -> str:
    """What addresses of the service begin with in the request at hand: nothing, or as `/sluice`."""
    return _prefix.get()


class Behind:
    """ASGI middleware around everything else.

    A proxy may hand paths on with the prefix or without it. Of `X-Forwarded-For` the last address counts that is of no trusted proxy: what a client writes
    there itself stands before it. `X-Forwarded-Proto` of a trusted proxy says whether its client came by https.
    """

    def __init__(self, app: ASGIApp, *, prefix: str, trusted: Sequence[str]) -> None:
        """`trusted` are addresses and networks of proxies; of others, these headers mean nothing."""
        self._app = app
        self._prefix = prefix
        self._told = ProxyHeadersMiddleware(self._inside, trusted_hosts=list(trusted))  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on as its client sent it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope.get("client") is not None:
            scope["client"] = (_plain(scope["client"][0]), scope["client"][1])
        scope["peer"] = scope.get("client")
        await self._told(scope, receive, send)  # type: ignore[arg-type]

    async def _inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("client") is not None:
            address = _address(scope["client"][0])
            scope["client"] = scope["peer"] if address is None else (address, scope["client"][1])
        if self._prefix:
            scope["root_path"] = self._prefix
            if not f"{scope['path']}/".startswith(f"{self._prefix}/"):
                scope["path"] = self._prefix + scope["path"]
                scope["raw_path"] = self._prefix.encode() + scope.get("raw_path", scope["path"].encode())
        token = _prefix.set(self._prefix)
        try:
            await self._app(scope, receive, send)
        finally:
            _prefix.reset(token)


def _plain(host: str) -> str:
    """An address of IPv4 as such, where the listener is one of IPv6; anything else as it is."""
    return _address(host) or host


def _address(host: str) -> str | None:
    """The address that the text is; None where it is none."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)
