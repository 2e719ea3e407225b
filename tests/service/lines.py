"""Servers whose lines hang: one that takes every connection and never answers, and one that hands on to another until it falls silent."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

EVERY = 0.1  # seconds between two words of a server that trickles, and between two looks of one that is silent
PIECE = 65_536  # bytes


@contextmanager
def accepting(word: bytes = b"") -> Iterator[str]:
    """The URL of a server that never answers; with a word it says that again and again in the head of an answer, so that no line of it is ever silent."""
    with _serving(lambda client: _say(client, word)) as endpoint:
        yield endpoint


def _say(client: socket.socket, word: bytes) -> None:
    if word:
        client.sendall(b"HTTP/1.1 200 OK\r\nX-Word:")
    while True:
        client.sendall(word)
        time.sleep(EVERY)


@dataclass(kw_only=True)
class Relay:
    """A server in front of another."""

    endpoint: str = ""
    left: int | None = None  # bytes that it hands on before it falls silent; None: all
    lock: threading.Lock = field(default_factory=threading.Lock)

    def let_by(self, count: int) -> None:
        """Return once so many bytes may go on."""
        while True:
            with self.lock:
                if self.left is None or self.left >= count:
                    self.left = None if self.left is None else self.left - count
                    return
            time.sleep(EVERY)


@contextmanager
def relayed(endpoint: str) -> Iterator[Relay]:
    """One in front of the server at that URL."""
    to, relay = urlsplit(endpoint), Relay()

    def hand_on(client: socket.socket) -> None:
        with socket.create_connection((to.hostname or "", to.port or 80)) as server:
            back = threading.Thread(target=_pumped, args=(server, client, relay), daemon=True)
            back.start()
            _pumped(client, server, relay)
            back.join()

    with _serving(hand_on) as relay.endpoint:
        yield relay


def _pumped(source: socket.socket, target: socket.socket, relay: Relay) -> None:
    with suppress(OSError):
        while piece := source.recv(PIECE):
            relay.let_by(len(piece))
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def _serving(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    clients = list[socket.socket]()

    def one(client: socket.socket) -> None:
        with suppress(OSError), client:
            serve(client)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                clients.append(client)
                threading.Thread(target=one, args=(client,), daemon=True).start()

    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        for client in clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
