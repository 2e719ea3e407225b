"""Requests that outlast faults of the moment: made again with pauses in between, as long as the work at hand has patience, and only where that does no harm.

A request that the Hub may have carried out although its answer was lost is made again only when it changes nothing; of others, whoever asked has to look.
"""

import logging
import time
from dataclasses import dataclass
from typing import Any

import httpx2
from httpx2 import ByteStream, ConnectError, ConnectTimeout, PoolTimeout, Request, Response, TransportError

from config.errors import HubUnavailable
from config.passing import CONFLICT, in_turn, passes, pause, wait_asked
from publishers.wire import redact
from service.hubclient.allowance import allowance
from service.hubclient.lines import CONNECT, Limits, Lines, Paces, ending
from service.hubclient.traffic import UNREACHED, traffic

FIRST = 0.5  # seconds of the first pause, at most
LONGEST = 30.0  # seconds of a pause within an attempt, unless the Hub asks for more
SMALL = 4_000_000  # bytes of an answer that is read whole before it counts as one
ASKING = ("/api/validate-yaml", "/info/lfs/objects/batch", "/preupload/", "/paths-info/")  # in paths of what is posted and changes nothing
ADVICE = "If it stays so, check the network and `hub_endpoint`."
_SAID = 300  # characters of what the Hub said that are told

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Fault:
    """What went wrong with one try."""

    words: str
    harmless: bool  # it was surely not carried out
    error: TransportError | None = None
    response: Response | None = None
    wait: float | None = None  # seconds that the Hub asked for

    @property
    def sentence(self) -> str:
        """The words as the beginning of a sentence."""
        return f"{self.words[0].upper()}{self.words[1:]}"


class Retrying(httpx2.BaseTransport):
    """A transport that makes requests again."""

    def __init__(self, inner: httpx2.BaseTransport, limits: Limits) -> None:
        self._inner = inner
        self._limits = limits

    def handle_request(self, request: Request) -> Response:
        """The answer. Raises HubUnavailable when a fault outlasts the patience there is, and what the client raises where it is not for us to try again."""
        request.extensions["timeout"] = self._timeouts(request.extensions.get("timeout") or {})
        began, tries = time.monotonic(), 0
        while True:
            if ending.begun:
                raise HubUnavailable(f"{_origin(request)} is asked no more: the program ends.")
            allowance().check()
            found = self._once(request)
            if isinstance(found, Response):
                return found
            allowance().check()
            seconds = pause(tries, first=FIRST, longest=LONGEST, asked=found.wait)
            patience = allowance().patience - (time.monotonic() - began)
            if seconds > patience or not _repeatable(request, found):
                return self._given_up(request, found, patience)
            log.info("%s; tried again in %.1f s", found.words, seconds, extra={"action": "hub_retry"})
            allowance().told(f"{found.sentence}. It is tried again in {seconds:.0f} s.")
            if found.response is not None:
                found.response.close()
            ending.wait(seconds)
            tries += 1

    def close(self) -> None:
        """Close what is below."""
        self._inner.close()

    def _once(self, request: Request) -> Response | _Fault:
        try:
            response = _whole(request, self._inner.handle_request(request))
        except TransportError as error:
            traffic.called(request.method, UNREACHED)
            words = f"{_origin(request)} cannot be reached ({type(error).__name__}: {redact(str(error), _token(request))[:_SAID]})"
            return _Fault(words=words, harmless=isinstance(error, ConnectError | ConnectTimeout | PoolTimeout), error=error)
        traffic.called(request.method, str(response.status_code))
        traffic.dated(response.headers)
        said = _said(response)
        taking_turns = in_turn(response.status_code, said)
        if not passes(response.status_code) and not taking_turns:
            return response
        words = f"{_origin(request)} answered {response.status_code}" + (f" and said: {redact(said, _token(request))[:_SAID].rstrip('.')}" if said else "")
        wait = wait_asked(response.headers)
        refused = taking_turns or response.status_code == 429 or (response.status_code == 503 and wait is not None)
        return _Fault(words=words, harmless=refused, response=response, wait=wait)

    def _given_up(self, request: Request, fault: _Fault, patience: float) -> Response:
        """What is left to do: the client makes some requests again itself, but must neither sleep for hours nor outdo our patience."""
        if _repeatable(request, fault) or (fault.wait is not None and fault.wait > patience):
            if fault.response is not None:
                fault.response.close()
            raise HubUnavailable(f"{fault.sentence}. {ADVICE}", wait=fault.wait) from fault.error
        if fault.response is not None:
            return fault.response
        assert fault.error is not None  # noqa: S101  a fault is one or the other
        raise fault.error

    def _timeouts(self, given: dict[str, float | None]) -> dict[str, float]:
        """What the client asks for, and ours where it would wait for ever."""
        ours = {"connect": CONNECT, "read": self._limits.silence, "write": self._limits.silence, "pool": CONNECT}
        return {name: min(given.get(name) or most, most) for name, most in ours.items()}


class Client(httpx2.Client):
    """The Hub's client on our lines, through the environment's proxies as well."""

    def __init__(self, limits: Limits, **options: Any) -> None:
        self.limits = limits
        self._paces = Paces(limits)
        super().__init__(**options)

    def _init_transport(self, *args: Any, **options: Any) -> httpx2.BaseTransport:
        return self._ours(super()._init_transport(*args, **options))

    def _init_proxy_transport(self, *args: Any, **options: Any) -> httpx2.BaseTransport:
        return self._ours(super()._init_proxy_transport(*args, **options))

    def _ours(self, made: httpx2.BaseTransport) -> Retrying:
        made._pool._network_backend = Lines(self.limits, self._paces)  # type: ignore[attr-defined]
        return Retrying(made, self.limits)


def _whole(request: Request, response: Response) -> Response:
    """The answer with its content, where it is small: one that breaks off is none."""
    length = response.headers.get("content-length", "")
    small = (length.isdigit() and int(length) <= SMALL) or response.headers.get("content-type", "").startswith("application/json")
    if (request.method != "GET" and response.status_code != CONFLICT) or not small or not isinstance(response.stream, httpx2.SyncByteStream):
        return response
    try:
        content = b"".join(response.stream)
    finally:
        response.close()
    return Response(response.status_code, headers=response.headers, stream=ByteStream(content), extensions=response.extensions)


def _said(response: Response) -> str | None:
    """What the Hub said of a refusal, of a conflict by its content too: that alone tells one that passes."""
    if response.status_code == CONFLICT and "x-error-message" not in response.headers and isinstance(response.stream, ByteStream):
        return Response(response.status_code, headers=response.headers, stream=response.stream).read().decode(errors="replace")
    return response.headers.get("x-error-message")


def _repeatable(request: Request, fault: _Fault) -> bool:
    """Whether the request may be made again, and can be."""
    asks = request.method in {"GET", "HEAD"} or (request.method == "POST" and any(part in request.url.path for part in ASKING))
    return isinstance(request.stream, ByteStream) and (fault.harmless or asks)


def _origin(request: Request) -> str:
    return f"the Hub at {request.url.scheme}://{request.url.netloc.decode()}"


def _token(request: Request) -> str | None:
    return request.headers.get("authorization", "").removeprefix("Bearer ") or None
