"""What the proxy with faults keeps, and what it lets go."""

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.faulty import Fault, always, faulty
from hub.server import running
from tests.service.helpers import eventually


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("fault", [Fault(stall=True), Fault(choke=True)], ids=["stalled", "choked"])
def test_a_connection_that_is_held_is_let_go_when_its_client_gives_it_up(fault: Fault, tmp_path: Path) -> None:
    (root := tmp_path / "hub").mkdir()
    with running(root) as url, faulty(url) as proxy:
        proxy.rule = always(fault)
        where = urlsplit(proxy.url)
        before = open_files()
        for _ in range(5):
            with socket.create_connection((where.hostname, where.port)) as line:
                line.sendall(b"POST /api/models HTTP/1.1\r\nHost: hub\r\nContent-Length: 4\r\n\r\nbody")
                line.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    line.recv(1)
        eventually(lambda: open_files() <= before)
