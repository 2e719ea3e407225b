import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy

from config.errors import ConfigurationError, SluiceError
from config.settings import Settings, Watched
from service.api.tokens import create_token
from service.daemon import serve, worker
from service.daemon.serve import Worker, front
from service.pulse import pulse
from service.release.checks.watch import unreleasable
from service.store import Published, RunRecord, Store, open_store
from service.store.database import now
from service.store.lease import kept_lease
from service.store.outside import WatchRow
from tests.service.conftest import Upstream
from tests.service.helpers import eventually, queue_run, working

SERVE = """
import sys, time
from pathlib import Path
from config.settings import Settings
from service.daemon.serve import serve

def execute(store, run):
    Path(sys.argv[1], "began").touch()
    while not Path(sys.argv[1], "go").exists():
        time.sleep(0.02)
    store.finish(run.id, state="done")

serve(Settings(home=Path(sys.argv[1]), api_port=0), execute)
"""


class Executor:
    """Notes which runs it was given, and publishes a repo for each."""

    def __init__(self) -> None:
        self.runs: list[RunRecord] = []

    def __call__(self, store: Store, run: RunRecord) -> None:
        self.runs.append(run)
        store.record_publication(
            run.id, Published(repo="ours/model", revision=run.release.sha, url="", files=("README.md",), manifest_digest="m", changed=True)
        )
        store.finish(run.id, state="done")


def ended(store: Store, run: RunRecord) -> RunRecord:
    """The run when it has ended."""
    eventually(lambda: store.run(run.id).state not in ("queued", "running", "interrupted"))
    return store.run(run.id)


@contextmanager
def serving(home: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The daemon as a process, and its URL."""
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(home)], stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line.startswith("Sluice listens on http://127.0.0.1:"), line
        yield process, line.split()[-1]
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (SluiceError("The disk is full."), "The disk is full."),
        (RuntimeError("token hf_" + "a" * 34), "RuntimeError: token hf_[hidden]"),
        (None, "did not say how the run ended"),
    ],
)
def test_a_run_that_breaks_off_is_failed(store: Store, raised: Exception | None, told: str) -> None:
    def execute(store: Store, run: RunRecord) -> None:
        if raised:
            raise raised

    run = queue_run(store)
    with working(Worker(store, execute)):
        failed = ended(store, run)
    assert failed.state == "failed"
    assert told in failed.error


def test_nothing_that_goes_wrong_between_runs_ends_the_worker_and_health_tells_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "FAILING_SECONDS", 0.1)
    faults = iter([OSError(errno.ESTALE, "Stale file handle"), sqlalchemy.exc.DataError("UPDATE", {}, ValueError("it takes no such text"))])
    failing = list[bool]()

    def may_begin() -> bool:
        failing.extend(sign.failing for sign in pulse.signs() if sign.part == "worker")
        if (fault := next(faults, None)) is not None:
            raise fault
        return True

    run = queue_run(store)
    with pulse.part("worker", limit=600), working(Worker(store, Executor(), may_begin=may_begin)):
        assert ended(store, run).state == "done"
        eventually(lambda: len(failing) > 3)
    assert failing[:4] == [False, True, True, False]


def test_a_database_that_refuses_to_take_a_run_back_is_not_waited_for(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "TROUBLE_SECONDS", 0.1)
    monkeypatch.setattr(worker, "FAILING_SECONDS", 0.1)
    faults, done = iter([sqlalchemy.exc.TimeoutError("QueuePool limit of size 5 overflow 10 reached")]), Executor()

    def execute(store: Store, run: RunRecord) -> None:
        if (fault := next(faults, None)) is not None:
            raise fault
        done(store, run)

    def refused(store: Store, *given: Any) -> None:
        raise sqlalchemy.exc.DataError("UPDATE", {}, ValueError("it takes no such text"))

    monkeypatch.setattr(Store, "release", refused)
    run = queue_run(file_store)
    with working(Worker(file_store, execute, seconds=0.5)):
        assert ended(file_store, run).state == "done"


def test_runs_are_carried_out_one_after_the_other(store: Store) -> None:
    runs = [queue_run(store, f"upstream/{name}") for name in "abc"]
    executor = Executor()
    with working(Worker(store, executor)):
        for run in runs:
            assert ended(store, run).state == "done"
    assert [run.id for run in executor.runs] == [run.id for run in runs]


def test_a_run_that_takes_longer_than_its_lease_keeps_it(store: Store) -> None:
    def execute(store: Store, run: RunRecord) -> None:
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            stolen.append(store.lease("thief", seconds=60))
            time.sleep(0.1)
        store.finish(run.id, state="done")

    stolen: list[RunRecord | None] = []
    run = queue_run(store)
    with working(Worker(store, execute, seconds=0.6)):
        assert ended(store, run).state == "done"
    assert set(stolen) == {None}


def test_a_lease_is_kept_for_as_long_as_the_block(file_store: Store) -> None:
    queue_run(file_store)
    run = file_store.lease("worker", seconds=0.3)
    with kept_lease(file_store, run, "worker", seconds=0.3):
        time.sleep(0.8)
        assert file_store.lease("thief", seconds=60) is None
    eventually(lambda: file_store.lease("thief", seconds=60) is not None)


def test_a_lease_is_kept_where_all_connections_are_in_use_for_a_moment(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run, renew, busy = queue_run(file_store), Store.renew, iter([True, True])
    file_store.lease("worker", seconds=2)

    def renewed(store: Store, *given: Any) -> bool:
        if next(busy, False):
            raise sqlalchemy.exc.TimeoutError("QueuePool limit of size 5 overflow 10 reached")
        return renew(store, *given)

    monkeypatch.setattr(Store, "renew", renewed)
    with kept_lease(file_store, run, "worker", seconds=2):
        time.sleep(2.5)
        assert file_store.lease("thief", seconds=60) is None


@pytest.mark.parametrize(
    "surprise", [KeyError("surprise"), sqlalchemy.exc.DataError("INSERT", {}, ValueError("it takes no such text"))], ids=["program", "database"]
)
def test_a_part_whose_work_fails_goes_on_and_health_tells_it(file_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surprise: Exception) -> None:
    monkeypatch.setattr(serve, "FAILING_SECONDS", 0.2)
    monkeypatch.setattr(serve, "IDLE_SECONDS", 0.05)
    failing, taken = threading.Event(), serve.take_hints
    failing.set()

    def odd(*given: Any) -> None:
        if failing.is_set():
            raise surprise
        taken(*given)

    monkeypatch.setattr(serve, "take_hints", odd)
    with front(file_store, Settings(home=tmp_path / "home", api_port=0)) as url:

        def told(status: int) -> bool:
            answer = httpx.get(f"{url}/api/v1/health", timeout=20)
            return answer.status_code == status and [part["name"] for part in answer.json()["parts"] if part["failing"]] == (
                ["intake"] if status == 503 else []
            )

        eventually(lambda: told(503))
        assert httpx.get(f"{url}/api/v1/live", timeout=20).status_code == 200, "a restart cures no bug"
        file_store.put_hints({"upstream/unwatched": "webhook"})
        failing.clear()
        eventually(lambda: told(200) and file_store.hints() == ())


def test_a_poll_a_webhook_and_a_request_all_lead_to_a_run(file_store: Store, upstream: Upstream) -> None:
    settings = upstream.settings
    executor = Executor()
    bearer = {"Authorization": f"Bearer {create_token(file_store, 'test')}"}
    with front(file_store, settings) as url, working(Worker(file_store, executor)):
        eventually(lambda: len(executor.runs) == 1)
        polled = executor.runs[0]
        assert (polled.trigger, polled.release.sha) == ("poll", upstream.author.model_info("upstream/model").sha)

        upstream.author.create_webhook(url=f"{url}/webhooks/huggingface", watched=[{"type": "model", "name": "upstream/model"}], secret="secret-of-the-webhook")
        sha = upstream.release()
        eventually(lambda: len(executor.runs) == 2)
        assert (executor.runs[1].trigger, executor.runs[1].release.sha) == ("webhook", sha)
        ended(file_store, executor.runs[1])

        number = file_store.publications(polled.id)[0].id
        answer = httpx.post(f"{url}/api/v1/publications/{number}/republish", headers=bearer)
        assert (answer.status_code, answer.json()["run"]) == (202, polled.id)
        eventually(lambda: len(executor.runs) == 3)
        assert (executor.runs[2].id, executor.runs[2].trigger, executor.runs[2].attempt) == (polled.id, "republish", 2)

        upstream.release("upstream/unwatched")
        request = {"repo": "upstream/unwatched", "recipe": settings.watch[0].recipe}
        answer = httpx.post(f"{url}/api/v1/runs", json=request, headers=bearer)
        assert answer.status_code == 202
        again = httpx.post(f"{url}/api/v1/runs", json=request, headers=bearer)
        assert again.json()["run"] == answer.json()["run"]
        eventually(lambda: len(executor.runs) == 4)
        assert executor.runs[3].trigger == "api"

        unknown = httpx.post(f"{url}/api/v1/runs", json={**request, "repo": "upstream/nowhere"}, headers=bearer)
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_upstream")


def test_a_request_while_the_hub_is_down_is_told_so(file_store: Store, upstream: Upstream) -> None:
    bearer = {"Authorization": f"Bearer {create_token(file_store, 'test')}"}
    with front(file_store, upstream.settings.with_(hub_endpoint="http://127.0.0.1:1")) as url:
        answer = httpx.post(f"{url}/api/v1/runs", json={"repo": "upstream/model"}, headers=bearer)
    assert (answer.status_code, answer.json()["code"]) == (502, "hub_failed")


def test_a_signal_puts_the_run_back_and_ends_the_daemon(tmp_path: Path) -> None:
    store = open_store(Settings(home=tmp_path).database)
    run = queue_run(store)
    with serving(tmp_path) as (process, url):
        eventually((tmp_path / "began").exists)
        assert httpx.get(f"{url}/api/v1/health").json()["status"] == "ok"
        assert store.run(run.id).state == "running"
        process.terminate()
        assert process.wait(timeout=20) == 0
    assert (store.run(run.id).state, store.run(run.id).worker) == ("queued", None)
    store.close()


def test_a_killed_daemon_goes_on_when_it_is_started_again(tmp_path: Path) -> None:
    store = open_store(Settings(home=tmp_path).database)
    run = queue_run(store)
    with serving(tmp_path) as (process, _):
        eventually((tmp_path / "began").exists)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(timeout=20)
    assert store.run(run.id).state == "interrupted"
    (tmp_path / "go").touch()
    with serving(tmp_path) as (process, _):
        assert ended(store, run).state == "done"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
    store.close()


def test_an_entry_with_a_broken_recipe_is_told_and_the_others_go_on(file_store: Store, upstream: Upstream, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text((tmp_path / "small.yaml").read_text().replace("kld.mean", "kld.meen"))
    watch = (Watched(repo="upstream/a", recipe=str(broken)), Watched(repo="upstream/b", recipe="nonesuch"), *upstream.settings.watch)
    with front(file_store, upstream.settings.with_(watch=watch)) as url:
        eventually(lambda: [run.release.repo for run in file_store.runs()] == ["upstream/model"])
        health = httpx.get(f"{url}/api/v1/health")
    assert (health.status_code, len(health.json()["watch"])) == (503, 2)
    assert [(item.repo, item.error[:40]) for item in unreleasable(file_store, upstream.settings.with_(watch=watch))] == [
        ("upstream/a", "Gate close is on kld.meen, which nothing"),
        ("upstream/b", "There is no recipe named 'nonesuch'. Kno"),
    ]


def test_an_entry_of_the_watch_list_that_cannot_be_read_is_told_and_the_others_go_on(file_store: Store, upstream: Upstream) -> None:
    with file_store.write() as session:
        session.add(WatchRow(entry={"repo": "upstream/a", "stars": 3}, by="ci", created=now()))
    serve._tell_broken(file_store, upstream.settings)
    with front(file_store, upstream.settings) as url:
        eventually(lambda: [run.release.repo for run in file_store.runs()] == ["upstream/model"])
        health = httpx.get(f"{url}/api/v1/health")
    assert (health.status_code, len(health.json()["watch"])) == (503, 1)
    assert [(item.repo, "stars" in item.error) for item in unreleasable(file_store, upstream.settings)] == [("entry 1 of the watch list", True)]


def test_an_address_in_use_is_explained(file_store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(api_port=taken.getsockname()[1])
        with pytest.raises(ConfigurationError, match="cannot listen on"), front(file_store, settings):
            pass
