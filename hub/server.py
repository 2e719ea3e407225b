"""Serving a root folder: in the foreground, or beside a program that uses it."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from hub.app import make_app
from hub.core import Hub, opened
from hub.errors import RootError

BACKLOG = 128
GRACE = 5  # seconds that transfers under way get at the end


def serve(root: Path, *, host: str = "127.0.0.1", port: int = 0, ready: Callable[[str], None] | None = None) -> None:
    """Serve the Hub at `root` until SIGTERM or SIGINT; `port` 0 takes a free one.

    `ready` is called with the base URL once it answers. Raises hub.errors.RootError when another process serves the root,
    the folder is not a Hub's, or the address cannot be listened on.
    """
    with opened(root) as hub, _listening(host, port) as listener:
        _server(hub, listener, ready or (lambda url: None)).run(sockets=[listener])


@contextmanager
def running(root: Path, *, port: int = 0) -> Iterator[str]:
    """The Hub at `root`, served from a thread of this process for as long as the context lasts; yields its base URL. Raises as `serve` does."""
    urls: list[str] = []
    started = threading.Event()

    def ready(url: str) -> None:
        urls.append(url)
        started.set()

    with opened(root) as hub, _listening("127.0.0.1", port) as listener:
        server = _server(hub, listener, ready)

        def run() -> None:
            try:
                server.run(sockets=[listener])
            finally:
                started.set()

        thread = threading.Thread(target=run, name="hub", daemon=True)
        thread.start()
        started.wait()
        if not urls:
            raise RootError("The Hub's server did not start; its log says why.")
        try:
            yield urls[0]
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else an answer waits 40 ms for the client to acknowledge its head
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).rstrip(".")
        raise RootError(f"The Hub cannot listen on {host}, port {port}: {reason}. Choose another port, or 0 for a free one.") from error
    with listener:
        yield listener


def _server(hub: Hub, listener: socket.socket, ready: Callable[[str], None]) -> uvicorn.Server:
    config = uvicorn.Config(
        make_app(hub),
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE,
    )
    host, port = listener.getsockname()[:2]
    return _Server(config, lambda: ready(f"http://{f'[{host}]' if ':' in host else host}:{port}"))


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # In a thread: what is called may ask the Hub something.
        asyncio.get_running_loop().run_in_executor(None, self._ready)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not recorded, or uvicorn would raise the signal again after a clean end.
        self.force_exit, self.should_exit = self.should_exit, True
