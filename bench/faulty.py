"""A proxy between a client and a Hub that does what networks and Hubs do on bad days, one request after the other."""

import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PIECE = 65_536  # bytes
LOOK = 200  # milliseconds between two looks whether a connection that is held is still wanted


@dataclass(frozen=True, kw_only=True)
class Request:
    """The head of a request, as the proxy sees it."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What becomes of a request."""

    answer: int | None = None  # with this status instead of the Hub's
    headers: dict[str, str] = field(default_factory=dict)  # of that answer
    content: bytes = b""  # of that answer
    said: str = ""  # by it, as the Hub says what is wrong
    stall: bool = False  # never answered, and the connection held as long as its client waits
    lose: bool = False  # carried out, and the answer thrown away
    cut: int | None = None  # bytes of the answer that come, before the connection is closed; reset when it is 0
    rate: float | None = None  # bytes a second of the answer
    choke: bool = False  # the request's body is not taken off the line
    take: float | None = None  # bytes a second of the request's body
    then: Callable[[], None] | None = None  # done once the Hub has answered, before the answer comes back

    @property
    def reset(self) -> bool:
        """Whether the connection ends without an answer."""
        return self == Fault(cut=0)


Rule = Callable[[Request], Fault | None]


def faults(*given: Fault | None, method: str = "", path: str = "") -> Rule:
    """The first requests of this method to paths with `path` in them meet these, in turn; every other is let through."""
    left = list(given)
    lock = threading.Lock()

    def rule(request: Request) -> Fault | None:
        with lock:
            return left.pop(0) if left and method in ("", request.method) and path in request.path else None

    return rule


def always(fault: Fault, *, method: str = "", path: str = "") -> Rule:
    """Each such request meets this."""
    return lambda request: fault if method in ("", request.method) and path in request.path else None


@dataclass
class Proxy:
    """A running proxy. `rule` may be changed at any time."""

    url: str
    rule: Rule = lambda request: None
    seen: list[Request] = field(default_factory=list)

    def count(self, method: str, path: str) -> int:
        """How many such requests there were."""
        return sum(request.method == method and path in request.path for request in list(self.seen))


@contextmanager
def faulty(target: str) -> Iterator[Proxy]:
    """A proxy before the Hub at this URL, for as long as the block lasts."""
    where = urlsplit(target)
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = Proxy(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
    ended = threading.Event()

    def accept() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_serve, args=(line, (where.hostname, where.port), proxy, ended), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield proxy
    finally:
        ended.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _serve(line: socket.socket, target: tuple[str, int], proxy: Proxy, ended: threading.Event) -> None:
    """One connection, which carries one request."""
    with line, suppress(OSError):
        line.settimeout(60)
        head, body = _head(line)
        if not head:
            return
        request = _request(head)
        proxy.seen.append(request)
        fault = proxy.rule(request) or Fault()
        if fault.choke:
            _hold(line, ended)
            return
        length = int(request.headers.get("content-length", "0"))
        if fault.answer is not None or fault.reset or fault.stall:
            if request.headers.get("transfer-encoding") != "chunked":
                while len(body) < length:
                    body += line.recv(PIECE)
            if fault.stall:
                _hold(line, ended)
            elif fault.answer is not None:
                line.sendall(_answer(fault))
            else:
                _reset(line)
            return
        with socket.create_connection(target) as there:
            there.sendall(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + body)
            chunked = request.headers.get("transfer-encoding") == "chunked"
            while (left := length - len(body)) > 0 or (chunked and not body.endswith(b"0\r\n\r\n")):
                most = PIECE if fault.take is None else max(1, int(fault.take / 10))
                piece = line.recv(most if chunked else min(most, left))
                if not piece:
                    return
                there.sendall(piece)
                body += piece
                if fault.take is not None and ended.wait(len(piece) / fault.take):
                    return
            if fault.then is not None:
                there.recv(1, socket.MSG_PEEK)
                fault.then()
            _back(there, line, fault, ended)


def _back(there: socket.socket, line: socket.socket, fault: Fault, ended: threading.Event) -> None:
    """Pass on the answer, or what the fault leaves of it."""
    passed = 0
    while piece := there.recv(PIECE if fault.rate is None else 1):
        if fault.lose:
            continue
        if fault.cut is not None and passed + len(piece) > fault.cut:
            line.sendall(piece[: fault.cut - passed])
            return
        line.sendall(piece)
        passed += len(piece)
        if fault.rate is not None and ended.wait(len(piece) / fault.rate):
            return


def _hold(line: socket.socket, ended: threading.Event) -> None:
    """Keep the connection without a word until its client gives it up: thousands of these would else be open in the end."""
    looked = select.poll()
    looked.register(line, select.POLLRDHUP)  # reads nothing, so that what was not taken off the line stays there
    while not looked.poll(LOOK) and not ended.is_set():
        pass


def _reset(line: socket.socket) -> None:
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.close()


def _head(line: socket.socket) -> tuple[bytes, bytes]:
    content = b""
    while b"\r\n\r\n" not in content:
        piece = line.recv(PIECE)
        if not piece:
            return b"", b""
        content += piece
    head, _, body = content.partition(b"\r\n\r\n")
    lines = [part for part in head.split(b"\r\n") if not part.lower().startswith(b"connection:")]
    return b"\r\n".join(lines) + b"\r\n\r\n", body


def _request(head: bytes) -> Request:
    first, *rest = head.decode("latin-1").strip().split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (part.partition(":") for part in rest)}
    return Request(method=method, path=path, headers=headers)


def _answer(fault: Fault) -> bytes:
    headers = {"Content-Length": str(len(fault.content)), "Connection": "close", **({"X-Error-Message": fault.said} if fault.said else {}), **fault.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {fault.answer} Fault\r\n{lines}\r\n".encode() + fault.content
