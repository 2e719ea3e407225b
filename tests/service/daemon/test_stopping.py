"""The daemon ends soon after it is told to, also while calls to the Hub hang; and while they hang, everything else goes on."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from bench.faulty import Fault, Proxy, always, faulty
from config.written import load_recipe
from service.api.tokens import create_token
from service.store import RunRecord, Store, open_store
from tests.service.conftest import Upstream
from tests.service.helpers import eventually, queue_run

SERVE = """
import os, sys
from pydantic import SecretStr
from config.settings import Settings
from service.daemon.serve import serve
from service.release.lifecycle import execute
settings = Settings.model_validate_json(sys.argv[1]).with_(hub_token=SecretStr(os.environ["TOKEN"]))
serve(settings, lambda store, run: execute(store, run, settings))
"""


@pytest.fixture
def proxy(upstream: Upstream) -> Iterator[Proxy]:
    with faulty(upstream.settings.hub_endpoint) as found:
        yield found


@contextmanager
def serving(upstream: Upstream, proxy: Proxy, **changes: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The daemon as a process, and its URL."""
    settings = upstream.settings.with_(hub_endpoint=proxy.url, **changes)
    environment = {"TOKEN": settings.hub_token.get_secret_value(), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    command = [sys.executable, "-c", SERVE, settings.model_dump_json()]
    log = (Path(settings.home).parent / "serve.log").open("w")
    with log, subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, cwd=Path(__file__).parents[3]) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("Sluice listens on http://127.0.0.1:"), line
            yield process, line.split()[-1]
        finally:
            process.kill()


@pytest.fixture
def store(upstream: Upstream) -> Iterator[Store]:
    opened = open_store(upstream.settings.database)
    yield opened
    opened.close()


def queued(store: Store, upstream: Upstream) -> RunRecord:
    recipe = upstream.settings.watch[0].recipe
    return queue_run(store, recipe=recipe, recipe_digest=load_recipe(recipe).digest())


def test_a_hub_that_hangs_holds_neither_the_api_nor_the_end(upstream: Upstream, proxy: Proxy, store: Store) -> None:
    proxy.rule = always(Fault(stall=True))
    run = queued(store, upstream)
    bearer = {"Authorization": f"Bearer {create_token(store, 'test')}"}
    with serving(upstream, proxy) as (process, url):
        eventually(lambda: len(proxy.seen) >= 2, seconds=100)  # the poll's call and the worker's hang
        assert store.run(run.id).state == "running"
        body = httpx.get(f"{url}/api/v1/health", timeout=20).json()
        assert {part["name"] for part in body["parts"]} == {"api", "poll", "intake", "follow-ups", "housekeeping", "worker"}
        assert not any(part["stuck"] for part in body["parts"])
        assert httpx.get(f"{url}/api/v1/runs", headers=bearer, timeout=20).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) in {0, -signal.SIGALRM}  # where the machine is so busy that leaving takes that long, the kernel has ended it
    assert (store.run(run.id).state, store.run(run.id).worker) == ("queued", None)


def test_what_is_stuck_is_told_with_since_when(upstream: Upstream, proxy: Proxy, store: Store) -> None:
    proxy.rule = always(Fault(stall=True))
    queued(store, upstream)
    with serving(upstream, proxy, stuck_minutes=0.001) as (process, url):
        eventually(lambda: httpx.get(f"{url}/api/v1/live", timeout=20).status_code == 503, seconds=60)
        eventually(lambda: httpx.get(f"{url}/api/v1/health", timeout=20).json()["status"] == "failing")
        (stuck,) = [part for part in httpx.get(f"{url}/api/v1/live", timeout=20).json()["parts"] if part["stuck"]]
        assert (stuck["name"], stuck["limit"]) == ("worker", pytest.approx(0.066))
        assert stuck["since"]
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)
