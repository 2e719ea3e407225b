"""Where the API listens: its address, and who may be connected for how long, so that idle and slow connections never take it away from others."""

import asyncio
import functools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from config.errors import ConfigurationError, SluiceError
from service.pulse import pulse

HEAD_SECONDS = 15.0  # from a connection, or the answer before, to the end of the next request's head
STALL_SECONDS = 30.0  # that a client may leave an answer unread
CONNECTIONS = 512  # of all clients together
END_SECONDS = 10  # that requests under way get at the end
SILENT_SECONDS = 60.0  # that the event loop may not get round to anything

_FULL = (
    b'{"type":"urn:sluice:problem:busy","title":"Service Unavailable","status":503,'
    b'"detail":"All connections that this address may have are at work. Try again.","code":"busy","request_id":""}'
)
_REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: %d\r\n\r\n%b"


class Connection(HttpToolsProtocol):
    """One connection. Where there are too many, of one client or of all, the one that has waited longest for its client gives way to the new one."""

    def __init__(self, *arguments: Any, per_client: int, **named: Any) -> None:
        """`per_client`: connections that one address may have."""
        super().__init__(*arguments, **named)
        self._per_client = per_client
        self._patience: asyncio.TimerHandle | None = None
        self._idle_since = 0.0

    @property
    def waits(self) -> bool:
        """Whether its client is to act, who has not sent a whole request since the last answer."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # none before the first request
        return cycle is None or cycle.response_complete or cycle.more_body

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._await_head()
        others = [each for each in self.connections if each is not self and isinstance(each, Connection)]
        own = [each for each in others if each.client and self.client and each.client[0] == self.client[0]]
        for among, most in ((own, self._per_client), (others, CONNECTIONS)):
            if len(among) >= most and not _give_way(among):
                transport.write(_REFUSAL % (len(_FULL), _FULL))
                transport.close()
                return

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed."""
        self._be_patient(None)
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """The head of a request is there; how long its body may take, the guard knows."""
        self._be_patient(None)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """An answer is written."""
        super().on_response_complete()
        if not self.transport.is_closing() and self.cycle.response_complete and not self.flow.write_paused:
            self._await_head()

    def pause_writing(self) -> None:
        """The client does not read as fast as is written."""
        super().pause_writing()
        self._be_patient(STALL_SECONDS)

    def resume_writing(self) -> None:
        """It has read on."""
        super().resume_writing()
        if self.waits:
            self._await_head()
        else:
            self._be_patient(None)

    def _await_head(self) -> None:
        self._idle_since = self.loop.time()
        self._be_patient(HEAD_SECONDS)

    def _be_patient(self, seconds: float | None) -> None:
        """Close the connection after so many seconds, unless this is said again before."""
        if self._patience is not None:
            self._patience.cancel()
        self._patience = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)


def _give_way(among: list[Connection]) -> bool:
    """Close the one of these connections that has waited longest for its client; False when none of them waits."""
    longest = min((each for each in among if each.waits), key=lambda each: each._idle_since, default=None)
    if longest is None:
        return False
    longest.connections.discard(longest)  # it counts no more, though its end comes later
    longest.transport.abort()
    return True


class Server(uvicorn.Server):
    """One whose event loop gives signs of life as the part of that name, as long as it goes round."""

    def __init__(self, config: uvicorn.Config, part: str) -> None:
        super().__init__(config)
        self._part = part

    async def on_tick(self, counter: int) -> bool:
        """Called by the loop ten times a second."""
        pulse.beat(self._part)
        return await super().on_tick(counter)


@contextmanager
def listening(app: ASGIApp, host: str, port: int, *, per_client: int, name: str = "api") -> Iterator[str]:
    """The application at the yielded URL, served from a thread of that name until the block ends; port 0 takes a free one.

    It is a part of the service by that name: a loop that has ended, or that something blocks, is told as stuck.

    Raises ConfigurationError when the address cannot be used.
    """
    listener = _listen(host, port, name)
    config = uvicorn.Config(
        app,
        http=functools.partial(Connection, per_client=per_client),  # type: ignore[arg-type]
        log_config=None,  # its loggers hand on to ours
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        timeout_keep_alive=int(HEAD_SECONDS),
        timeout_graceful_shutdown=END_SECONDS,
    )
    server = Server(config, name)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name=name, daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise SluiceError(f"The listener of `{name}` did not start; the log above tells why.")
            time.sleep(0.01)
        host, port = listener.getsockname()[:2]
        with pulse.part(name, limit=SILENT_SECONDS):
            yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _listen(host: str, port: int, name: str) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
        # Connections inherit it. asyncio sets it only on sockets whose protocol number is TCP's, which is 0 here; without it an answer, which is written as
        # head and body, waits up to 44 ms for the client to acknowledge its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        what = {"api": "The API cannot", "health": "Health cannot"}[name]
        raise ConfigurationError(
            f"{what} listen on {host}, port {port}: {error.strerror or error}. Change `api_host` or `{name}_port`, or stop what uses it."
        ) from error
