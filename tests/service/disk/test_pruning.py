"""Outputs go when nobody needs them, and never before; a prune that is killed, or races with a run, breaks nothing."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from service.cli.main import app
from service.disk import pruning
from service.disk.pruning import prune
from service.execution.kept import StageStore
from service.store import open_store, order_of
from tests.service.disk.conftest import SIZE, Home

ROOT = Path(__file__).parents[3]
Make = Callable[..., Home]


def test_what_is_over_goes_and_the_rest_says_why_it_stays(home: Make) -> None:
    at = home(runs=1, days=30)
    at.run(1, {"convert": "published", "report": "explained"}, publish="ours/model-GGUF")
    at.run(2, {"convert": "over"})
    at.run(3, {"convert": "newest", "build": "shared"})
    at.run(4, {"convert": "held", "build": "shared"}, state="held")
    at.run(5, {"convert": "at work"}, state=None)
    at.run(6, {"convert": "failed"}, state="failed")
    at.output("nobody's")
    dry = prune(at.store, at.settings, dry_run=True)
    assert len(at.there) == 9, "a dry run removes nothing"
    done = prune(at.store, at.settings)
    assert done == dry
    assert {item.name: item.why for item in done.gone} == {"over": "run 2 of upstream/model@000000000000 has 1 newer one"}
    assert SIZE <= done.freed < SIZE + 8192
    why = {item.name: item.why.partition(" of upstream/model@")[::2] for item in done.left}
    assert {name: (run, words.partition(" ")[2]) for name, (run, words) in why.items() if name != "nobody's"} == {
        "published": ("run 1", "is published in ours/model-GGUF"),
        "explained": ("run 1", "is published in ours/model-GGUF, and this explains it"),
        "newest": ("run 3", "is among the newest 1"),
        "shared": ("run 4", "is held"),
        "held": ("run 4", "is held"),
        "at work": ("run 5", "is running"),
        "failed": ("run 6", "is among the newest 1 that did not come to their end"),
    }
    assert why["nobody's"][0] == "it belongs to no run, and was last used today"
    assert at.there == {item.name for item in done.left}
    assert at.set_aside() == []

    later = prune(at.store, at.settings, now=datetime.now(UTC) + timedelta(days=31))
    assert {item.name for item in later.gone} == {"newest", "failed", "nobody's"}
    assert at.there == {"published", "explained", "shared", "held", "at work"}


def test_what_several_outputs_have_in_common_is_freed_with_the_last_of_them(home: Make) -> None:
    at = home(runs=1)
    same = os.urandom(SIZE)
    for key in ("a", "b", "c"):
        at.output(key, same)
    for number, key in enumerate(("a", "b", "c"), start=1):
        at.run(number, {"snapshot": key})
    (blob,) = (at.settings.folder / "blobs").iterdir()
    assert blob.stat().st_nlink == 4
    first = prune(at.store, at.settings)
    assert {item.name for item in first.gone} == {"a", "b"}
    assert first.freed < 20_000, "their weights are c's too"
    assert blob.exists()
    assert prune(at.store, at.settings, now=datetime.now(UTC) + timedelta(days=99)).freed > SIZE
    assert not blob.exists()


def test_short_of_space_the_oldest_go_first_and_what_is_published_last_but_not_its_report(home: Make) -> None:
    at = home(runs=9)
    at.run(1, {"convert": "published", "report": "explained"}, publish="ours/model-GGUF")
    at.run(2, {"convert": "older"})
    at.run(3, {"convert": "newer"})
    at.run(4, {"convert": "at work"}, state=None)
    assert [item.name for item in prune(at.store, at.settings, lacking=1).gone] == ["older"]
    assert [item.name for item in prune(at.store, at.settings, lacking=SIZE + 100_000).gone] == ["newer", "published"]
    assert prune(at.store, at.settings, lacking=10**12).gone == ()
    assert at.there == {"explained", "at work"}


def test_a_download_that_broke_off_is_told_and_goes_before_anything_else_that_stays(home: Make) -> None:
    at = home(runs=2, days=30)
    at.run(1, {"convert": "published"}, publish="ours/model-GGUF")
    at.run(2, {"convert": "newest"})
    for number in (3, 4, 5):
        at.broken_off(number, f"given up {number}", state="cancelled")
    for number in (6, 7):
        at.broken_off(number, f"waits {number}", state=None)
    dry, done = prune(at.store, at.settings, dry_run=True), prune(at.store, at.settings)
    assert done == dry
    assert {(item.kind, item.name): item.why for item in done.gone} == {
        ("download", "given up 3"): "a download that broke off: run 3 of upstream/model@000000000000 is cancelled, as are 2 newer ones"
    }
    assert {item.name: item.why for item in done.left if item.kind == "download"} == {
        "given up 4": "a download that broke off: run 4 of upstream/model@000000000000 is among the newest 2 that did not come to their end",
        "given up 5": "a download that broke off: run 5 of upstream/model@000000000000 is among the newest 2 that did not come to their end",
        "waits 6": "a download that broke off: run 6 of upstream/model@000000000000 is queued",
        "waits 7": "a download that broke off: run 7 of upstream/model@000000000000 is queued",
    }
    assert [item.name for item in prune(at.store, at.settings, lacking=SIZE + 100_000).gone] == ["given up 4", "given up 5"]
    assert [item.name for item in prune(at.store, at.settings, lacking=10**12).gone] == ["newest", "published"]
    assert [item.name for item in prune(at.store, at.settings, lacking=1, paused=True).gone] == ["waits 6"]
    assert [path.name for path in at.set_aside()] == ["waits 7.partial"]
    later = datetime.now(UTC) + timedelta(days=15)
    assert [item.why for item in prune(at.store, at.settings, now=later).gone] == ["a download that broke off: nobody went on with it, begun 15 days ago"]
    assert at.set_aside() == []


def test_what_newest_runs_are_held_with_goes_where_no_run_could_begin_otherwise_the_oldest_first(home: Make) -> None:
    at = home(runs=2)
    for number in range(1, 6):
        at.run(number, {"convert": f"held {number}"}, state="held")
    at.broken_off(6, "waits 6", state=None)
    at.run(7, {"convert": "at work"}, state=None)
    assert [item.name for item in prune(at.store, at.settings).gone] == ["held 1"]
    assert [item.name for item in prune(at.store, at.settings, lacking=10**12).gone] == ["held 2", "held 3"]
    assert at.there == {"held 4", "held 5", "at work"}
    assert [item.name for item in prune(at.store, at.settings, lacking=SIZE + 100_000, paused=True).gone] == ["waits 6", "held 4"]
    assert [item.name for item in prune(at.store, at.settings, lacking=10**12, paused=True).gone] == ["held 5"]
    assert at.there == {"at work"}
    assert [run.state for run in at.store.runs(state="held")] == ["held"] * 5, "approving one makes again what is gone"


def test_a_run_that_is_approved_after_one_looked_loses_nothing(home: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    at = home(runs=1)
    runs = [at.run(number, {"convert": f"held {number}"}, state="held") for number in (1, 2, 3)]
    looked = pruning.fates

    def look_and_then(*given: object) -> object:
        found = looked(*given)  # type: ignore[arg-type]
        if at.store.run(runs[0]).state == "held":
            at.store.approve(runs[0], [item.hold for item in at.store.holds(runs[0])], by="Ada", comment="Fine.", source="command")
        return found

    monkeypatch.setattr(pruning, "fates", look_and_then)
    assert prune(at.store, at.settings).gone == ()
    assert len(at.there) == 3


def test_an_output_that_a_process_uses_stays(home: Make) -> None:
    at = home(runs=1)
    at.run(1, {"convert": "used"})
    at.run(2, {"convert": "newest"})
    worker = StageStore(at.settings.folder)
    assert worker.look_up("used") is not None
    assert prune(at.store, at.settings).gone == ()
    worker.close()
    assert [item.name for item in prune(at.store, at.settings).gone] == ["used"]


def test_a_run_that_is_queued_again_after_one_looked_loses_nothing(home: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    at = home(runs=1)
    older, _ = at.run(1, {"convert": "older"}), at.run(2, {"convert": "newest"})
    looked = pruning.fates

    def look_and_then(*given: object) -> object:
        found = looked(*given)  # type: ignore[arg-type]
        at.store.enqueue(order_of(at.store.run(older), trigger="republish"), again=True)
        return found

    monkeypatch.setattr(pruning, "fates", look_and_then)
    assert prune(at.store, at.settings).gone == ()
    assert at.there == {"older", "newest"}


def test_runs_and_prunes_at_once_never_miss_what_they_looked_up(home: Make) -> None:
    """A worker that finds an output finds its files, however often others prune meanwhile."""
    at = home(runs=1)
    for number in range(12):
        at.run(number, {"convert": f"key-{number}"})
    ended, missed = threading.Event(), list[str]()

    def work() -> None:
        for number in itertools.cycle(range(12)):
            stages = StageStore(at.settings.folder)
            found = stages.look_up(f"key-{number}")
            if found is not None and not found.file().path.exists():
                missed.append(found.key)
            stages.close()
            if ended.is_set():
                return

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(4):
        prune(at.store, at.settings)
    ended.set()
    thread.join(60)
    assert missed == []
    prune(at.store, at.settings)
    assert at.there == {"key-11"}, "what was used then is over now"


PRUNE = """
import sys, shutil, os, signal
from config.settings import Settings
from service.disk.pruning import prune
from service.store import open_store
removing = shutil.rmtree
def killed(path, *given, **options):
    if "discarded-" in str(path):
        next(path.rglob("model")).unlink()  # half
        os.kill(os.getpid(), signal.SIGKILL)
    removing(path, *given, **options)
shutil.rmtree = killed
settings = Settings(home=sys.argv[1], keep={"runs": 1})
prune(open_store(sys.argv[2]), settings)
"""


def test_a_prune_killed_in_the_middle_leaves_each_output_whole_or_gone(home: Make, database_url: str) -> None:
    at = home(runs=1)
    for number in range(5):
        at.run(number, {"convert": f"key-{number}"})
    for left in (4, 3, 2, 1):
        done = subprocess.run([sys.executable, "-c", PRUNE, str(at.settings.folder), database_url], cwd=ROOT, check=False)
        assert done.returncode == -signal.SIGKILL
        assert len(at.there) == left
        stages = StageStore(at.settings.folder)
        assert all((found := stages.look_up(key)) is not None and found.file().path.stat().st_size == SIZE for key in at.there)
        stages.close()
        assert at.set_aside() == [], "what is left of the other is swept"
    assert prune(at.store, at.settings).gone == ()
    assert len(list((at.settings.folder / "blobs").iterdir())) == 1


def test_logs_stay_as_long_as_outputs_may(home: Make) -> None:
    at = home(runs=1, days=30)
    for number in (1, 2):
        run = at.run(number, {"convert": f"key-{number}"})
        (at.settings.folder / "logs" / f"run-{run}").mkdir()
        (at.settings.folder / "logs" / f"run-{run}" / "convert.log").write_text("said")
    assert {item.kind for item in prune(at.store, at.settings).gone} == {"output"}
    gone = prune(at.store, at.settings, now=datetime.now(UTC) + timedelta(days=31)).gone
    assert [item.name for item in gone if item.kind == "logs"] == ["run-1", "run-2"]


def test_the_command_says_what_goes_and_why_the_rest_stays(tmp_path: Path) -> None:
    settings = Home(settings=SimpleNamespace(folder=tmp_path / "home"), store=open_store(f"sqlite:///{tmp_path / 'home' / 'sluice.db'}"))  # type: ignore[arg-type]
    settings.run(1, {"convert": "over"})
    settings.run(2, {"convert": "published"}, publish="ours/model-GGUF")

    def asked(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["prune", *arguments], env={"SLUICE_HOME": str(tmp_path / "home"), "SLUICE_KEEP__RUNS": "1", "COLUMNS": "120"})
        assert done.exit_code == 0, done.output
        return done.stdout

    for words in ("Would go", "has 1 newer one", "is published in ours/model-GGUF", "would be freed", "free on the disk"):
        assert words in asked("--dry-run")
    told = json.loads(asked("--json"))
    assert ([item["name"] for item in told["gone"]], [item["name"] for item in told["left"]]) == (["over"], ["published"])
    assert told["free"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
