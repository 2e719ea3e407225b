"""Connections that no silence and no trickle can hold: the network below the Hub's client, with a deadline on every read and write.

A line has a purse of seconds: waiting for the other side takes from it, and bytes that move put back what they may take at the lowest rate that is allowed.
So one rule bounds silence, the length of a small answer that comes byte by byte, and the rate of large files.
Where the operator sets a limit, all lines together send, or receive, no more than that: what waits for its turn takes nothing from a purse.
Covers: connecting, TLS, reading, writing, HTTP proxies. Does not cover: looking up a name, which the resolver bounds, and Xet, whose own client has its own.
"""

import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any

import httpcore2

from service.hubclient.allowance import allowance
from service.hubclient.traffic import traffic

PIECE = 16_384  # bytes written at once
CONNECT = 10.0  # seconds for a connection to be made
_SHORTEST = 0.001  # seconds; a timeout of 0 would mean not to wait at all
_LOOK = 0.2  # seconds between two looks whether the program ends


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a line may be like at worst."""

    silence: float = 100.0  # seconds
    rate: float = 10_000.0  # bytes a second
    upload: int | None = None  # bytes a second that all lines together send at most; None: as many as they can
    download: int | None = None  # and receive


class Ending:
    """Told once when the program is to end: whatever waits for a Hub then waits no longer."""

    def __init__(self) -> None:
        self.begun = False
        self._lines: dict[int, Line] = {}

    def begin(self) -> None:
        """Break off all that is under way. May be called by a signal handler, so it takes no lock."""
        self.begun = True
        for line in list(self._lines.values()):
            line.break_off()

    def wait(self, seconds: float) -> None:
        """Wait so long, or until it begins."""
        until = time.monotonic() + seconds
        while not self.begun and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK))

    def add(self, line: "Line") -> None:
        """Break this one off as well, when it comes to that."""
        self._lines[id(line)] = line
        if self.begun:
            line.break_off()

    def remove(self, line: "Line") -> None:
        """It is closed."""
        self._lines.pop(id(line), None)


ending = Ending()
"""Of this program."""


class Pace:
    """Lets bytes by at a rate, whichever line they are on: each piece waits until those before it have had their time."""

    def __init__(self, rate: int | None, *, clock: Callable[[], float] = time.monotonic, wait: Callable[[float], None] = ending.wait) -> None:
        """`rate` in bytes a second; None lets everything by at once."""
        self._rate, self._clock, self._wait = rate, clock, wait
        self._lock = Lock()
        self._free = 0.0  # when, by the clock, those that were let by have had their time

    def let_by(self, count: int) -> None:
        """Wait for the turn of so many bytes."""
        if self._rate is None:
            return
        with self._lock:
            now = self._clock()
            turn = max(self._free, now)
            self._free = turn + count / self._rate
        if turn > now:
            self._wait(turn - now)


class Paces:
    """Those of both directions."""

    def __init__(self, limits: Limits) -> None:
        self.sent, self.received = Pace(limits.upload), Pace(limits.download)


class Line(httpcore2.NetworkStream):
    """A connection with a purse."""

    def __init__(self, stream: httpcore2.NetworkStream, limits: Limits, paces: Paces) -> None:
        self._stream = stream
        self._limits = limits
        self._paces = paces
        self._purse = limits.silence  # seconds
        self._answered = False
        ending.add(self)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What comes next."""
        self._answered = True
        began = time.monotonic()
        content = self._stream.read(max_bytes, self._allowed(timeout, httpcore2.ReadTimeout))
        self._settle(time.monotonic() - began, len(content))
        traffic.moved("received", len(content))
        self._paces.received.let_by(len(content))
        return content

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send it all."""
        if self._answered:  # a new request
            self._answered, self._purse = False, self._limits.silence
        for start in range(0, len(buffer), PIECE):
            piece = buffer[start : start + PIECE]
            self._paces.sent.let_by(len(piece))
            began = time.monotonic()
            self._stream.write(piece, self._allowed(timeout, httpcore2.WriteTimeout))
            self._settle(time.monotonic() - began, len(piece))
            traffic.moved("sent", len(piece))

    def close(self) -> None:
        """Close it."""
        ending.remove(self)
        self._stream.close()

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> httpcore2.NetworkStream:
        """The same line, encrypted."""
        ending.remove(self)
        return Line(self._stream.start_tls(ssl_context, server_hostname, self._allowed(timeout, httpcore2.ConnectTimeout)), self._limits, self._paces)

    def get_extra_info(self, info: str) -> Any:
        """What the client asks of a connection."""
        return self._stream.get_extra_info(info)

    def break_off(self) -> None:
        """Have whoever reads or writes fail at once."""
        if isinstance(found := self._stream.get_extra_info("socket"), socket.socket):
            with suppress(OSError):
                socket.socket.shutdown(found, socket.SHUT_RDWR)  # not that of SSL, which would say goodbye first

    def _allowed(self, timeout: float | None, late: type[Exception]) -> float:
        """Seconds that the next read or write may take. Raises when there are none."""
        left = allowance().left
        seconds = min(value for value in (timeout, self._purse, left) if value is not None)
        if self._purse <= 0:
            raise late(f"slower than {self._limits.rate:,.0f} bytes a second")
        if left is not None and left <= 0:
            raise late("it took too long")
        return max(seconds, _SHORTEST)

    def _settle(self, seconds: float, count: int) -> None:
        self._purse = min(self._limits.silence, self._purse - seconds + count / self._limits.rate)


class Lines(httpcore2.NetworkBackend):
    """Makes lines."""

    def __init__(self, limits: Limits, paces: Paces | None = None) -> None:
        self._limits = limits
        self._paces = paces or Paces(limits)
        self._plain = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """A line to there."""
        left = allowance().left
        seconds = min(value for value in (timeout, CONNECT, self._limits.silence, left) if value is not None)
        return Line(self._plain.connect_tcp(host, port, max(seconds, _SHORTEST), local_address, socket_options), self._limits, self._paces)

    def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None) -> httpcore2.NetworkStream:
        """A line to a program of this machine."""
        return Line(self._plain.connect_unix_socket(path, timeout, socket_options), self._limits, self._paces)
