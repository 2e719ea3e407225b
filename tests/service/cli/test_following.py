import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from config.progress import Progress
from config.settings import Settings
from service.cli.following import follow, newest_running
from service.cli.main import app
from service.operations.database import Here
from service.runs.summary import summary
from service.store import Store, open_store
from tests.service.helpers import eventually, queue_run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    opened = open_store(Settings(home=home).database)
    yield opened
    opened.close()


def begun(store: Store, repo: str = "upstream/model") -> int:
    """A run at its second stage."""
    run = queue_run(store, repo).id
    store.lease("worker", seconds=600, run=run)
    store.stage_finished(store.stage_started(run, "fix", "a"), state="done", seconds=1.25)
    return run


def here(store: Store) -> Here:
    return Here(store=store, settings=Settings())


@contextmanager
def in_a_thread(work: object) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join(timeout=30)
        assert not thread.is_alive()


def test_a_run_is_followed_to_its_end_in_lines(store: Store) -> None:
    run = begun(store)
    console = Console(file=io.StringIO(), width=200, highlight=False)

    def shown() -> str:
        return console.file.getvalue()  # type: ignore[attr-defined]

    with in_a_thread(lambda: follow(here(store), run, console, seconds=0.05)):
        eventually(lambda: "fix" in shown())
        stage = store.stage_started(run, "measure", "b")
        store.stage_finished(stage, state="failed", seconds=2.0, error="no [memory]")
        eventually(lambda: "no [memory]" in shown())
        store.finish(run, state="failed", error="no memory")
    assert shown().splitlines() == ["✓     1.2 s  fix", "✗     2.0 s  measure  no [memory]"]


def test_a_queued_run_is_waited_for_and_an_interrupted_one_is_not(store: Store) -> None:
    run = queue_run(store).id
    console = Console(file=io.StringIO(), width=200, highlight=False)
    with in_a_thread(lambda: follow(here(store), run, console, seconds=0.05)):
        eventually(lambda: "waits for a worker" in console.file.getvalue())  # type: ignore[attr-defined]
        time.sleep(0.2)
        store.lease("worker", seconds=0)
    assert console.file.getvalue().splitlines() == [f"run {run} is queued and waits for a worker"]  # type: ignore[attr-defined]


def test_only_stages_of_the_present_attempt_are_shown(store: Store) -> None:
    run = begun(store)
    store.finish(run, state="failed", error="no memory")
    queue_run(store)
    store.lease("worker", seconds=600)
    store.finish(run, state="done")
    console = Console(file=io.StringIO(), width=200, highlight=False)
    follow(here(store), run, console)
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_changes_are_told_once_each_until_the_run_ends(store: Store) -> None:
    run = begun(store)
    stage = store.stage_started(run, "measure", "b", estimate=60.0)
    told: list[dict[str, object]] = []
    with in_a_thread(lambda: told.extend(found.model_dump(mode="json") for found in here(store).changes(run, seconds=0.05))):
        time.sleep(0.3)
        for done in (0, 7):
            store.stage_progressed(stage, Progress(done=done, total=40, unit="windows"))
            time.sleep(0.3)
        store.stage_progressed(stage, Progress(done=7, total=40, unit="windows"))  # nothing new
        time.sleep(0.3)
        store.stage_finished(stage, state="done", seconds=1.0)
        store.finish(run, state="done")
    seen = [(document["state"], document["stages"][-1]["progress"] and document["stages"][-1]["progress"]["done"]) for document in told]
    assert seen[:3] == [("running", None), ("running", 0), ("running", 7)]
    assert seen[-1] == ("done", 7)
    assert len(seen) <= 5, "a document a change"


def test_the_newest_running_run_is_found(store: Store) -> None:
    assert newest_running(here(store)) is None
    first, second = begun(store, "upstream/a"), begun(store, "upstream/b")
    assert newest_running(here(store)) == second
    store.finish(second, state="done")
    assert newest_running(here(store)) == first


def test_status_of_a_running_run_tells_the_stage_at_work(store: Store) -> None:
    run = begun(store)
    stage = store.stage_started(run, "measure", "b", estimate=60.0)
    for done in (0, 10):
        store.stage_progressed(stage, Progress(done=done, total=40, unit="windows"))
        time.sleep(0.05)
    told = CliRunner().invoke(app, ["status", str(run)])
    assert told.exit_code == 0
    assert "at work: measure, 10 of 40 windows, " in told.stdout
    assert " left\n" in told.stdout
    document = json.loads(CliRunner().invoke(app, ["status", str(run), "--json"]).stdout)
    progress = document["stages"][-1]["progress"]
    assert (document["state"], progress["done"], progress["total"], progress["unit"]) == ("running", 10, 40, "windows")
    assert progress["rate"] > 0
    assert progress["left"] > 0


def test_status_tells_what_was_not_queued_and_why(store: Store) -> None:
    store.put_hints({"upstream/model": "poll"})
    assert "not queued" not in CliRunner().invoke(app, ["status"]).stdout, "nobody looked yet"
    store.defer_hint(store.hints()[0], error="Gate x is on kld.meen.", seconds=60)
    shown = CliRunner().invoke(app, ["status"]).stdout
    assert "no runs yet" in shown
    assert "not queued upstream/model, looked at again" in shown
    assert shown.rstrip().endswith("UTC: Gate x is on kld.meen.")


def test_status_follow_ends_with_the_run_as_status_does(store: Store) -> None:
    run = begun(store)
    store.finish(run, state="failed", error="no memory")
    runner = CliRunner()
    assert runner.invoke(app, ["status", str(run), "--follow"]).exit_code == 1
    (line,) = runner.invoke(app, ["status", str(run), "--follow", "--json"]).stdout.splitlines()
    assert json.loads(line) == summary(store, run)
    nothing = runner.invoke(app, ["status", "--follow"])
    assert (nothing.exit_code, nothing.stdout) == (0, "no run is being carried out; sluice status lists those there are\n")
    assert runner.invoke(app, ["status", "--follow", "--json"]).stdout == ""
    assert runner.invoke(app, ["status", "99", "--follow"]).exit_code == 1


def test_ctrl_c_ends_following_and_not_the_run(store: Store) -> None:
    run = begun(store)
    command = [sys.executable, "-c", "from service.cli import main; main()", "status", "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "✓     1.2 s  fix\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, f"no longer following; run {run} goes on\n")
    assert store.run(run).state == "running"
