"""What systemd hears of a service."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from service.api import listening
from service.daemon.watchdog import heard_by_systemd
from service.pulse import pulse
from tests.service.helpers import eventually


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Its end of the line; it wants to hear every 300 ms."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "notify"))
        line.settimeout(0.1)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "300000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        yield line


def heard(line: socket.socket, seconds: float) -> set[bytes]:
    """What comes in that time, after what lies there already."""
    found, until = set(), time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            found.add(line.recv(100))
        except TimeoutError:
            continue
    return found


def test_it_hears_again_and_again_until_a_part_is_stuck(systemd: socket.socket) -> None:
    with heard_by_systemd():
        assert heard(systemd, 1.0) == {b"WATCHDOG=1"}
        with pulse.part("worker", limit=0.0):
            heard(systemd, 0.5)  # what was on its way
            assert heard(systemd, 1.0) == set()
        assert heard(systemd, 2.0) == {b"WATCHDOG=1"}
    heard(systemd, 0.3)
    assert heard(systemd, 0.5) == set()


@pytest.mark.parametrize("changed", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": ""}])
def test_it_hears_nothing_that_it_does_not_ask_for(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str]) -> None:
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    with heard_by_systemd():
        assert heard(systemd, 0.5) == set()


def test_a_service_without_systemd_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with heard_by_systemd():
        pass


def stuck() -> set[str]:
    return {sign.part for sign in pulse.signs() if sign.stuck}


@pytest.mark.parametrize("name", ["api", "health"])
def test_it_hears_nothing_while_the_loop_that_answers_is_blocked(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    go_on = threading.Event()

    async def block(scope: Scope, receive: Receive, send: Send) -> None:
        go_on.wait(60)
        await PlainTextResponse("on")(scope, receive, send)

    monkeypatch.setattr(listening, "SILENT_SECONDS", 2.0)
    with listening.listening(block, "127.0.0.1", 0, per_client=4, name=name) as url, heard_by_systemd():
        assert stuck() == set()
        asking = threading.Thread(target=httpx.get, args=(url,), kwargs={"timeout": 60})
        asking.start()
        eventually(lambda: stuck() == {name}, 30)
        heard(systemd, 0.5)  # what was on its way
        assert heard(systemd, 1.0) == set()
        go_on.set()
        eventually(lambda: stuck() == set(), 30)
        assert heard(systemd, 2.0) == {b"WATCHDOG=1"}
        asking.join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # as the loop ends
def test_a_loop_that_ended_is_stuck_and_stays_so(systemd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    async def end(scope: Scope, receive: Receive, send: Send) -> None:
        asyncio.get_running_loop().stop()

    monkeypatch.setattr(listening, "SILENT_SECONDS", 2.0)
    with listening.listening(end, "127.0.0.1", 0, per_client=4) as url, heard_by_systemd():
        with suppress(httpx.HTTPError):
            httpx.get(url, timeout=10)
        eventually(lambda: stuck() == {"api"}, 30)
        heard(systemd, 0.5)
        assert heard(systemd, 1.0) == set()
    assert pulse.signs() == ()
