"""Clients that connect and say nothing, or too little: they are given up, and take nothing away from others. With real sockets."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from config.errors import ConfigurationError
from config.settings import Settings
from service.api import listening
from service.api.listening import Connection
from service.daemon.serve import front
from service.store import Store
from tests.service.helpers import eventually

HEAD = b"GET /api/v1/health HTTP/1.1\r\nHost: sluice\r\nX-Slow: "
BODY = b"POST /webhooks/huggingface HTTP/1.1\r\nHost: sluice\r\nContent-Length: 100\r\n\r\n{"
MANY = 200


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what was sent."""
    await PlainTextResponse(await Request(scope, receive).body())(scope, receive, send)


async def flood(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers more than fits into the buffers between two processes."""
    await PlainTextResponse(b"x" * 50_000_000)(scope, receive, send)


@pytest.fixture
def served() -> Iterator[str]:
    with listening.listening(echo, "127.0.0.1", 0, per_client=4) as url:
        yield url


def connected(url: str, said: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
    """A connection from that address of this machine, on which so much was said."""
    host, port = url.removeprefix("http://").rsplit(":", 1)
    line = socket.create_connection((host, int(port)), timeout=10, source_address=(source, 0))
    line.sendall(said)
    return line


def closed(line: socket.socket) -> bool:
    """Whether the server closes the connection before it says anything, in at most the socket's time-out."""
    try:
        return line.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("said", [b"", HEAD, BODY], ids=["idle", "slow head", "slow body"])
def test_two_hundred_connections_that_say_nothing_take_nothing_away(file_store: Store, tmp_path: Path, said: bytes) -> None:
    with front(file_store, Settings(home=tmp_path, api_port=0, hub_endpoint="http://127.0.0.1:1")) as url, ExitStack() as lines:
        for _ in range(MANY):
            lines.enter_context(connected(url, said))
        with httpx.Client(base_url=url) as client:
            for _ in range(3):
                assert client.get("/api/v1/health", timeout=5).status_code == 200


def test_the_one_that_waits_longest_gives_way(served: str) -> None:
    with ExitStack() as stack:
        lines = [stack.enter_context(connected(served, said)) for said in (b"", HEAD, BODY, b"")]
        other = stack.enter_context(connected(served, source="127.0.0.2"))
        stack.enter_context(connected(served))
        assert closed(lines[0])
        stack.enter_context(connected(served))
        assert closed(lines[1])
        lines[2].sendall(b"x" * 99)
        assert lines[2].recv(12) == b"HTTP/1.1 200"
        other.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert other.recv(12) == b"HTTP/1.1 200"


def test_what_is_at_work_does_not_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "waits", False)
    with listening.listening(echo, "127.0.0.1", 0, per_client=1) as url, ExitStack() as stack:
        first = stack.enter_context(connected(url))
        second = stack.enter_context(connected(url))
        assert second.recv(12) == b"HTTP/1.1 503"
        stack.enter_context(connected(url, source="127.0.0.2")).sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        first.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert first.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize(
    "said", [b"", HEAD, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n"], ids=["idle", "slow head", "idle after an answer", "lines without a word"]
)
def test_a_connection_without_a_request_is_closed_in_time(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(listening, "HEAD_SECONDS", 0.2)
    with listening.listening(echo, "127.0.0.1", 0, per_client=4) as url, connected(url, said) as line:
        while line.recv(1000):
            pass


def test_an_answer_that_is_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[Connection] = []
    lost = Connection.connection_lost
    monkeypatch.setattr(listening, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(Connection, "connection_lost", lambda self, exc: (ended.append(self), lost(self, exc))[1])
    with listening.listening(flood, "127.0.0.1", 0, per_client=4) as url, connected(url, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
        eventually(lambda: bool(ended))


def test_answers_do_not_wait_for_acknowledgements(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    made = Connection.connection_made

    def look(self: Connection, transport: asyncio.Transport) -> None:
        seen.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(self, transport)

    monkeypatch.setattr(Connection, "connection_made", look)
    assert httpx.get(served).status_code == 200
    assert seen == [1]


def test_health_may_have_a_listener_of_its_own(file_store: Store, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = Settings(home=tmp_path, api_port=0, health_port=port, api_connections_per_client=MANY, hub_endpoint="http://127.0.0.1:1")
    with front(file_store, settings) as url, ExitStack() as held:
        lines = [held.enter_context(connected(url, HEAD)) for _ in range(MANY + 1)]
        assert closed(lines[0]), "or the API's listener is not full"
        for path in ("live", "health"):
            assert httpx.get(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=10).json()["status"] == "ok"
        assert "sluice_" in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
        health = httpx.get(f"http://127.0.0.1:{port}/api/v1/health")
        assert (health.status_code, health.json()["status"]) == (200, "ok")
        assert httpx.get(f"http://127.0.0.1:{port}/api/v1/runs").status_code == 404
        with pytest.raises(ConfigurationError, match=r"Health cannot listen on .* `health_port`"), front(file_store, settings):
            pass
