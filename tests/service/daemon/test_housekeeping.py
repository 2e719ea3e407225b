"""What a service does about its disk by itself: it tidies, tidies more where space is short, and begins nothing where there is none."""

import os
import shutil
import threading
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from config.digests import file_sha256
from config.errors import ClusterUnavailable
from config.settings import Settings
from service.api import create_app
from service.cli.main import app
from service.daemon import housekeeping
from service.daemon.housekeeping import Housekeeping
from service.daemon.worker import Worker
from service.execution.artifacts import DAYS, ArtifactStore
from service.hubclient.traffic import traffic
from service.pulse import pulse
from service.store import RunRecord, Store
from tests.service.disk.conftest import Home
from tests.service.helpers import eventually, queue_run, working


@pytest.fixture
def home(tmp_path: Path, file_store: Store) -> Home:
    return Home(settings=Settings(home=tmp_path / "home", keep={"runs": 2, "free": 5_000_000_000, "pause": 1_000_000_000}), store=file_store)


class DiskOf:
    """A disk whose free space is said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 100_000_000_000
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=self.free))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> DiskOf:
    return DiskOf(monkeypatch)


def test_a_service_tidies_once_in_a_while_and_at_once_when_space_is_short(home: Home, disk: DiskOf) -> None:
    for number in (1, 2, 3):
        home.run(number, {"convert": f"key-{number}"})
    keeper = Housekeeping(home.store, home.settings)
    keeper.look()
    assert home.there == {"key-2", "key-3"}
    home.run(4, {"convert": "key-4"})
    keeper.look()
    assert home.there == {"key-2", "key-3", "key-4"}, "not yet"
    disk.free = 4_999_900_000
    keeper.look()
    assert home.there == {"key-3", "key-4"}, "what frees enough"
    (event, _) = home.store.audit_events(subject="disk")
    assert (event.source, event.action, event.details["things"], event.details["short_of"]) == ("housekeeping", "pruned", 1, 100_000)


def test_downloads_that_wait_keep_no_run_from_beginning(home: Home, disk: DiskOf) -> None:
    for number in (1, 2):
        home.broken_off(number, f"key-{number}", state=None)
    keeper = Housekeeping(home.store, home.settings)
    disk.free = 1_000_000_000
    keeper.look()
    assert len(home.set_aside()) == 2, "runs begin, and may go on with them"
    disk.free = 999_999_999
    keeper.look()
    assert home.set_aside() == []


def test_what_cannot_be_forgotten_is_tried_again_an_hour_later_and_told_until_then(home: Home, disk: DiskOf, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, asked = Housekeeping(home.store, home.settings), list[float]()

    def fails(*_: object, **__: object) -> None:
        asked.append(time.monotonic())
        raise OSError("the database is damaged")

    with monkeypatch.context() as patch:
        patch.setattr(housekeeping, "forget", fails)
        with pytest.raises(OSError, match="damaged"):
            keeper.look()
        keeper.look()
        assert (len(asked), keeper.failing) == (1, True)
        later = time.monotonic() + housekeeping.AGAIN_SECONDS
        patch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(OSError, match="damaged"):
            keeper.look()
        assert len(asked) == 2
    later += housekeeping.AGAIN_SECONDS
    monkeypatch.setattr(time, "monotonic", lambda: later)
    keeper.look()
    assert not keeper.failing


def test_nothing_is_old_by_a_clock_that_is_ahead_of_the_hub_s(home: Home, disk: DiskOf, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 3):
        home.run(number, {"convert": f"key-{number}"})
    keeper, forgotten = Housekeeping(home.store, home.settings), []
    monkeypatch.setattr(keeper, "_forget", lambda: forgotten.append(True))
    monkeypatch.setattr(housekeeping, "TIDY_SECONDS", 0.0)
    monkeypatch.setattr(traffic, "ahead", 5 * 365 * 86_400.0)
    keeper.look()
    assert (home.there, forgotten) == ({"key-1", "key-2", "key-3"}, [])
    monkeypatch.setattr(traffic, "ahead", 3600.0)
    keeper.look()
    assert (home.there, forgotten) == ({"key-2", "key-3"}, [True])


def test_short_of_space_room_is_made_whatever_the_clock_says(home: Home, disk: DiskOf, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2, 3):
        home.run(number, {"convert": f"key-{number}"})
    monkeypatch.setattr(traffic, "ahead", 5 * 365 * 86_400.0)
    disk.free = 4_999_900_000
    Housekeeping(home.store, home.settings).look()
    assert "key-1" not in home.there


def test_the_store_of_a_cluster_keeps_files_for_a_week(home: Home, disk: DiskOf, tmp_path: Path) -> None:
    store, file = ArtifactStore(f"file://{tmp_path / 'store'}"), tmp_path / "file"
    digests = []
    for days in (DAYS + 1, DAYS - 1):
        file.write_text(f"{days} days old")
        digests.append(file_sha256(file))
        store.put(file, digests[-1])
        then = time.time() - days * 86_400
        os.utime(tmp_path / "store" / "artifacts" / digests[-1][:2] / digests[-1], (then, then))
    Housekeeping(home.store, home.settings.with_(executor="ray", store_url=store.url)).look()
    assert [store.has(digest) for digest in digests] == [False, True]


def test_a_store_that_is_away_is_swept_another_time(home: Home, disk: DiskOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def sweep(store: ArtifactStore, before: datetime) -> int:
        asked.append(before)
        raise ClusterUnavailable("the store is away")

    monkeypatch.setattr(ArtifactStore, "sweep", sweep)
    keeper = Housekeeping(home.store, home.settings.with_(executor="ray", store_url=f"file://{tmp_path}/store"))
    monkeypatch.setattr(keeper, "_forget", lambda: asked.append("forgot"))
    keeper.look()
    keeper.look()
    assert len(asked) == 2, "once each, an hour apart"
    assert asked[1] == "forgot", "all else is done all the same"


def test_no_run_is_begun_on_a_full_disk_and_everybody_is_told(home: Home, disk: DiskOf) -> None:
    keeper, begun = Housekeeping(home.store, home.settings), threading.Event()

    def execute(store: Store, run: RunRecord) -> None:
        begun.set()
        store.finish(run.id, state="done")

    disk.free = 999_999_999
    run = queue_run(home.store)
    with working(Worker(home.store, execute, may_begin=keeper.may_begin)):
        assert not begun.wait(1.5), "longer than a worker rests"
        assert home.store.run(run.id).state == "queued"
        with TestClient(create_app(home.store, home.settings)) as client:
            answer = client.get("/api/v1/health")
            assert (answer.status_code, answer.json()["disk"]) == (503, {"free": 999_999_999, "paused": True})
            told = CliRunner().invoke(app, ["status"], env={"SLUICE_HOME": str(home.settings.home), "COLUMNS": "200"}).stdout
            assert "paused Only 1.00 GB are free" in told
            disk.free = 1_000_000_000
            assert client.get("/api/v1/health").json()["disk"]["paused"] is False
        assert begun.wait(30)
        eventually(lambda: home.store.run(run.id).state == "done")
    assert "paused" not in CliRunner().invoke(app, ["status"], env={"SLUICE_HOME": str(home.settings.home), "COLUMNS": "200"}).stdout


def test_whatever_goes_wrong_at_a_look_there_is_another_one(home: Home, disk: DiskOf, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([KeyError(7), OSError("the disk is gone")])
    keeper, looked = Housekeeping(home.store, home.settings), threading.Event()

    def look() -> None:
        if (error := next(looks, None)) is not None:
            raise error
        looked.set()

    monkeypatch.setattr(keeper, "look", look)
    monkeypatch.setattr(housekeeping, "LOOK_SECONDS", 0.01)
    with housekeeping.tidied(keeper):
        assert looked.wait(10)


def test_a_look_that_hangs_or_fails_is_told(home: Home, disk: DiskOf, monkeypatch: pytest.MonkeyPatch) -> None:
    def there() -> tuple[str, bool, bool] | None:
        return next(((sign.doing, sign.stuck, sign.failing) for sign in pulse.signs() if sign.part == "housekeeping"), None)

    hang = threading.Event()

    def prune(*_: object, **__: object) -> None:
        hang.wait(60)
        raise OSError("the disk is gone")

    monkeypatch.setattr(housekeeping, "prune", prune)
    monkeypatch.setattr(housekeeping, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(housekeeping, "SILENT_SECONDS", 0.5)
    with housekeeping.tidied(Housekeeping(home.store, home.settings)):
        eventually(lambda: there() == ("prune", True, False))
        hang.set()
        eventually(lambda: (there() or ())[2:] == (True,))
    assert there() is None
