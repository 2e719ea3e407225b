"""Hubs that are away, busy or do not know the token, while the service has work to do: the real thing but for a proxy between the two."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from typer.testing import CliRunner

from bench.faulty import Fault, Proxy, Request, always, faulty
from config.errors import SluiceError
from config.settings import Settings
from service.api.tokens import create_token
from service.cli.main import app
from service.daemon.serve import front
from service.daemon.worker import Worker
from service.execution.workbench import Event
from service.hubclient import connect, retrying
from service.release import foreground, gathering, lifecycle
from service.release.gathering import gather, take_up
from service.release.intake import ReleaseRequest, queue_release
from service.release.lifecycle import execute
from service.runs.summary import summary
from service.store import RunRecord, Store
from tests.service.conftest import Upstream
from tests.service.helpers import eventually, working

REACHED = "the release is here"  # as far as runs go in these tests


@dataclass(frozen=True, kw_only=True)
class Away:
    """A service whose Hub is behind a proxy."""

    proxy: Proxy
    settings: Settings
    upstream: Upstream
    store: Store

    def queue(self, repo: str = "upstream/model") -> RunRecord:
        wanted = ReleaseRequest(repo=repo, revision="main", recipe=self.settings.watch[0].recipe, trigger="poll")
        return queue_release(self.store, self.settings, connect(self.settings), wanted)[0]

    def execute(self, store: Store, run: RunRecord) -> None:
        execute(store, run, self.settings, listener)


def listener(event: Event) -> None:
    if event.stage == "snapshot" and event.state in {"done", "reused"}:
        raise SluiceError(REACHED)


@pytest.fixture
def away(upstream: Upstream, file_store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Away]:
    monkeypatch.setattr(retrying, "FIRST", 0.02)
    monkeypatch.setattr(lifecycle, "_expect", lambda work, expected: None)  # which measures the machine first
    with faulty(upstream.settings.hub_endpoint) as proxy:
        settings = upstream.settings.with_(hub_endpoint=proxy.url, hub_patience=0.1, database_url=str(file_store._engine.url))
        yield Away(proxy=proxy, settings=settings, upstream=upstream, store=file_store)


def test_an_outage_costs_no_run_an_attempt_and_all_go_on_after_it(away: Away) -> None:
    repos = ["upstream/model", "upstream/other", "upstream/third"]
    for repo in repos[1:]:
        away.upstream.release(repo)
    runs = [away.queue(repo).id for repo in repos]
    away.proxy.rule = always(Fault(cut=0))
    with working(Worker(away.store, away.execute), seconds=60):
        for times in (1, 2, 3, 4):  # more often than a run that fails is tried
            eventually(lambda times=times: all(away.store.run(run).waits == times for run in runs), seconds=60)
            assert {(away.store.run(run).state, away.store.run(run).attempt) for run in runs} == {("queued", 1)}
            away.store.hasten()
        away.proxy.rule = lambda request: None
        away.store.hasten()
        eventually(lambda: all(away.store.run(run).state == "failed" for run in runs), seconds=120)
    assert {(away.store.run(run).error, away.store.run(run).attempt) for run in runs} == {(REACHED, 1)}


def test_who_asks_is_told_that_a_run_waits_and_until_when(away: Away) -> None:
    run = away.queue()
    away.proxy.rule = always(Fault(answer=429, headers={"Retry-After": "1800"}), path="/resolve/")
    bearer = {"Authorization": f"Bearer {create_token(away.store, 'test')}"}
    with front(away.store, away.settings.with_(watch=())) as url, working(Worker(away.store, away.execute), seconds=60):
        eventually(lambda: away.store.run(run.id).due is not None, seconds=60)
        waiting = away.store.run(run.id)
        told = httpx.get(f"{url}/api/v1/runs/{run.id}", headers=bearer).json()
        (listed,) = httpx.get(f"{url}/api/v1/runs", headers=bearer).json()["runs"]
    assert told["state"] == "queued"
    assert "answered 429" in told["error"]
    assert listed["again"] == told["again"]
    assert told["again"]["by_itself"] is True
    assert told["again"]["at"].startswith(f"{waiting.due:%Y-%m-%dT%H:%M:%S}")
    assert (waiting.due - waiting.started).total_seconds() >= 1800
    environment = {"SLUICE_HOME": str(away.settings.home), "SLUICE_DATABASE_URL": away.settings.database, "COLUMNS": "400"}
    one, several = (CliRunner().invoke(app, ["status", *which], env=environment) for which in ([str(run.id)], []))
    for shown in (one, several):
        assert f"tries it again by itself at {waiting.due:%Y-%m-%d %H:%M:%S} UTC" in shown.stdout
    assert one.exit_code == 1


def test_a_token_that_is_no_longer_accepted_is_waited_for(away: Away) -> None:
    run = away.queue()
    away.proxy.rule = always(Fault(answer=401, said="Invalid credentials in Authorization header"))
    with working(Worker(away.store, away.execute), seconds=60):
        eventually(lambda: away.store.run(run.id).waits == 1, seconds=60)
        away.proxy.rule = lambda request: None  # a new one
        away.store.hasten()
        eventually(lambda: away.store.run(run.id).state == "failed", seconds=60)
    assert (away.store.run(run.id).error, away.store.run(run.id).attempt) == (REACHED, 1)


def test_the_command_says_so_too_and_a_download_goes_on_where_it_broke(away: Away) -> None:
    wanted = ReleaseRequest(repo="upstream/model", revision="main", recipe=away.settings.watch[0].recipe, trigger="command")
    broken = iter([Fault(cut=3_500_000)])

    def breaks_off(request: Request) -> Fault | None:
        if request.method != "GET" or not request.path.endswith("/model.safetensors") or request.headers.get("range", "").startswith("bytes=0-"):
            return None  # nor when only the header is looked at
        return next(broken, Fault(cut=0))

    away.proxy.rule = breaks_off
    waiting = foreground.run(away.settings, wanted, listener)
    assert (waiting["state"], waiting["again"]["by_itself"]) == ("queued", True)
    away.proxy.seen.clear()
    away.proxy.rule = lambda request: None
    assert foreground.run(away.settings, wanted, listener)["error"] == REACHED
    (fetched,) = [
        request for request in away.proxy.seen if request.method == "GET" and request.path.endswith("/model.safetensors") and "/resolve/" in request.path
    ]
    assert int(fetched.headers["range"].removeprefix("bytes=").removesuffix("-")) > 1_000_000
    assert list((Path(away.settings.home) / "working").iterdir()) == []


def test_a_collection_that_cannot_be_made_is_made_later_by_itself(away: Away, monkeypatch: pytest.MonkeyPatch) -> None:
    run = away.queue()
    monkeypatch.setattr(gathering, "FIRST", 0.01)
    away.proxy.rule = always(Fault(answer=500), path="/collections")
    published = SimpleNamespace(job=SimpleNamespace(store=away.store, run=run), api=connect(away.settings))
    gather(published, ["upstream/model"], private=False)  # and the run goes on to its end
    eventually(lambda: take_up(away.store, connect(away.settings)))
    (item,) = away.store.follow_ups()
    assert (item.attempts, "answered 500" in item.error) == (2, True)
    assert f"tries it again by itself at {item.due:%Y-%m-%d}" in summary(away.store, run.id)["remarks"][-1]
    monkeypatch.setattr("service.daemon.serve.FOLLOW_UP_SECONDS", 0.05)
    away.proxy.rule = lambda request: None
    with front(away.store, away.settings.with_(watch=())):
        eventually(lambda: away.store.follow_ups() == (), seconds=30)
    (made,) = away.upstream.author.list_collections(owner="ours")
    assert made.title == "model"
