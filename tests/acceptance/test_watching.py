"""The watch list of a running service: what a poll asks of the Hub, counted there, and connections that say nothing."""

import json
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
import yaml
from starlette.types import ASGIApp, Receive, Scope, Send

import hub.server
from bench.polling import fill
from hub.app import make_app
from hub.core import Hub
from hub.tokens import create_token
from tests.acceptance.conftest import NAMESPACE, PROGRAMS, environment, sluice, wait_until

pytestmark = pytest.mark.slow

OWNERS = [f"owner-{number}" for number in range(12)]
EACH = 20  # repos


@contextmanager
def serving(folder: Path, **settings: object) -> Iterator[str]:
    """`sluice serve` under these settings, and its address."""
    path = folder / "sluice.yaml"
    path.write_text(yaml.safe_dump({"home": str(folder / "home"), "api_port": 0, "namespace": NAMESPACE, **settings}))
    command = [PROGRAMS / "sluice", "--config", path, "serve"]
    token = create_token(folder / "hub", user="publisher", orgs=[NAMESPACE]) if (folder / "hub").exists() else "none"
    with subprocess.Popen(command, env=environment(SLUICE_HUB_TOKEN=token), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = next(line for line in process.stdout if line.startswith("Sluice listens"))
            threading.Thread(target=process.stdout.read, daemon=True).start()  # else the log would fill the pipe
            yield said.split()[-1]
        finally:
            process.kill()


@contextmanager
def counting(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Counter[str]]]:
    """The Hub at `root`, and what it was asked for: how often each owner's repos were listed, and everything else under its path."""
    asked: Counter[str] = Counter()

    def counted(served: Hub) -> ASGIApp:
        app = make_app(served)

        async def count(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                query = dict(httpx.QueryParams(scope["query_string"].decode()))
                asked[query.get("author") or scope["path"]] += 1
            await app(scope, receive, send)

        return count

    monkeypatch.setattr(hub.server, "make_app", counted)
    with hub.server.running(root) as url:
        yield url, asked


def test_a_poll_takes_one_call_for_each_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "hub", OWNERS, EACH)
    watch = [{"owners": OWNERS, "tags": ["a tag that none has"]}, {"repos": [f"owner-0/model-{number}" for number in range(EACH)], "exclude": ["*"]}]
    with counting(tmp_path / "hub", monkeypatch) as (url, asked), serving(tmp_path, hub_endpoint=url, watch=watch, poll_minutes=0.01):
        wait_until(lambda: asked["owner-0"] >= 4, seconds=60, what="four polls")
        seen = dict(asked)
    assert set(seen) == set(OWNERS), "nothing else was asked"
    assert max(seen.values()) - min(seen.values()) <= 1


def test_two_hundred_idle_connections_do_not_take_the_api_away(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = free.getsockname()[1]
    with serving(tmp_path, hub_endpoint="http://127.0.0.1:1", health_port=own) as url, ExitStack() as lines:
        host, port = url.removeprefix("http://").rsplit(":", 1)
        for number in range(200):
            line = lines.enter_context(socket.create_connection((host, int(port))))
            line.sendall(b"GET /api/v1/health HTTP/1.1\r\nX-Slow: "[: number % 40])
        assert httpx.get(f"{url}/api/v1/health", timeout=30).json()["status"] == "ok"
        assert httpx.get(f"http://{host}:{own}/api/v1/health", timeout=30).json()["status"] == "ok", "on a listener of its own"


def test_a_broken_entry_is_shown_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "sluice.yaml").write_text(yaml.safe_dump({"home": str(tmp_path / "home"), "watch": [{"owners": ["acme"], "recipe": "nonesuch"}]}))
    told = sluice("--config", tmp_path / "sluice.yaml", "status")
    assert told.returncode == 0
    assert "cannot be released acme/* (recipe nonesuch): There is no recipe named 'nonesuch'" in told.stdout
    assert json.loads(sluice("--config", tmp_path / "sluice.yaml", "status", "--json").stdout) == []
