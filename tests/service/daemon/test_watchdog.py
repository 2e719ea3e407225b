"""What systemd hears of a service."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.daemon.watchdog import heard_by_systemd
from service.pulse import pulse


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
