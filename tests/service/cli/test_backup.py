"""`sluice backup`, and what an operator does with its file, as docs/operating.md says it."""

import json
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy
from click.testing import Result
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from bench.short_way import short
from config.errors import ConfigurationError, StageError
from config.settings import Settings
from service.cli.main import app
from service.daemon.serve import Worker, front
from service.release import lifecycle
from service.store import Store, open_store
from service.store.backup import back_up
from tests.service.conftest import Upstream
from tests.service.helpers import eventually, queue_run, working
from tests.service.release.short_way import ShortWay


def asked(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"SLUICE_HOME": str(home), "COLUMNS": "200"})


def test_a_home_that_was_lost_is_restored_by_putting_the_file_in_its_place(tmp_path: Path) -> None:
    home, copy = tmp_path / "home", tmp_path / "backups" / "monday.db"
    store = open_store(f"sqlite:///{home / 'sluice.db'}")
    run = queue_run(store)
    store.lease("a service at work", seconds=3600)
    found = asked(home, "backup", str(copy), "--json")
    assert json.loads(found.stdout) == {"file": str(copy), "bytes": copy.stat().st_size}
    assert [path.name for path in copy.parent.iterdir()] == ["monday.db"], "one file, and nothing beside it"
    before = json.loads(asked(home, "status", "--json").stdout)
    store.close()

    shutil.rmtree(home)
    home.mkdir()
    shutil.copy(copy, home / "sluice.db")
    assert json.loads(asked(home, "status", "--json").stdout) == before
    again = open_store(f"sqlite:///{home / 'sluice.db'}")
    assert again.run(run.id).state == "running", "whose lease runs out, or belongs to a process that is gone"
    assert queue_run(again).id == run.id
    again.close()


def test_while_others_write_the_copy_is_whole(tmp_path: Path) -> None:
    url, copy = f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path / "copy.db"
    store, written, over = open_store(url), threading.Event(), threading.Event()

    def write() -> None:
        for number in range(10_000):
            queue_run(store, recipe_digest=f"{number:064x}")
            if number == 20:
                written.set()
            if over.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    assert written.wait(30)
    back_up(url, copy)
    over.set()
    writer.join()
    store.close()
    with sqlite3.connect(copy) as found:
        (runs,) = found.execute("SELECT count(*) FROM runs").fetchone()
        assert runs >= 21
        assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert found.execute("PRAGMA foreign_key_check").fetchall() == []


def test_what_is_there_already_is_not_overwritten(tmp_path: Path) -> None:
    queue_run(open_store(f"sqlite:///{tmp_path / 'sluice.db'}"))
    (tmp_path / "copy.db").write_text("of last week")
    found = asked(tmp_path, "backup", str(tmp_path / "copy.db"))
    assert found.exit_code == 2
    assert "exists already. Nothing was overwritten" in found.output
    assert (tmp_path / "copy.db").read_text() == "of last week"


def test_a_place_that_cannot_be_is_told_in_a_sentence(tmp_path: Path) -> None:
    queue_run(open_store(f"sqlite:///{tmp_path / 'sluice.db'}"))
    (tmp_path / "file").write_text("")
    found = asked(tmp_path, "backup", str(tmp_path / "file" / "copy.db"))
    assert (found.exit_code, "No backup was made" in found.output) == (1, True), found.output


def test_without_a_database_none_is_made(tmp_path: Path) -> None:
    found = asked(tmp_path / "home", "backup", str(tmp_path / "copy.db"))
    assert found.exit_code == 2
    assert "nothing to back up" in found.output
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_database_is_told_and_leaves_no_backup(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'sluice.db'}")
    for number in range(300):
        queue_run(store, recipe_digest=f"{number:064x}")
    store.close()
    file = tmp_path / "sluice.db"
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 8192] = bytes(8192)
    file.write_bytes(content)
    found = asked(tmp_path, "backup", str(tmp_path / "copy.db"))
    assert found.exit_code == 1
    assert "No backup was made" in found.output
    assert not (tmp_path / "copy.db").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(shutil.which("pg_dump") is None, reason="PostgreSQL's own programs are not here")
def test_what_a_server_s_tool_says_is_told_without_the_password(postgres_server: sqlalchemy.Engine, tmp_path: Path) -> None:
    url = postgres_server.url.set(database="sluice_is_not_there", password="of-nobody-else")
    with pytest.raises(StageError, match=r"sluice_is_not_there cannot be copied: .*does not exist") as found:
        back_up(url.render_as_string(hide_password=False), tmp_path / "copy.backup")
    assert "of-nobody-else" not in str(found.value)
    assert list(tmp_path.iterdir()) == []


def test_without_a_server_s_tool_it_is_said_that_this_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"on a server \(postgresql://sluice@db/sluice\), and its program for copies, `pg_dump`, is not here"):
        back_up("postgresql+psycopg://sluice:secret@db/sluice", tmp_path / "copy.backup")


@contextmanager
def served(settings: Settings) -> Iterator[Store]:
    """What `sluice serve` has: the API, polls, intake and a worker, for as long as the block lasts."""
    with (
        closing(open_store(settings.database)) as store,
        front(store, settings),
        working(Worker(store, lambda store, run: lifecycle.execute(store, run, settings))),
    ):
        yield store


def lost_and_restored(settings: Settings, copy: Path) -> None:
    """What docs/operating.md has an operator do, after all that the service had is gone."""
    shutil.rmtree(settings.folder)
    url = make_url(settings.database).set(drivername="postgresql")
    if settings.database.startswith("sqlite"):
        settings.folder.mkdir()
        shutil.copy(copy, settings.folder / "sluice.db")
        return
    maintenance = f"--maintenance-db={url.set(database='postgres').render_as_string(hide_password=False)}"
    for command in (["dropdb", "--if-exists", "--force"], ["createdb"]):
        subprocess.run([*command, maintenance, str(url.database)], check=True)
    subprocess.run(["pg_restore", "--exit-on-error", "--no-owner", f"--dbname={url.render_as_string(hide_password=False)}", copy], check=True)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_service_that_lost_its_home_is_restored_and_publishes_nothing_twice(
    kind: str, upstream: Upstream, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "postgresql" and shutil.which("pg_dump") is None:
        pytest.skip("PostgreSQL's own programs are not here")
    url = request.getfixturevalue("postgres_url") if kind == "postgresql" else None
    settings = upstream.settings.with_(poll_minutes=0.01, database_url=url)
    copy = tmp_path / "backups" / "monday.backup"
    short(monkeypatch, tmp_path / "built")

    def published(store: Store, sha: str) -> None:
        eventually(lambda: any(run.release.sha == sha and run.state == "done" for run in store.runs()), 60)

    with served(settings) as store:
        way = ShortWay(upstream=upstream, store=store)
        published(store, before := way.upstream.author.repo_info("upstream/model").sha or "")
        back_up(settings.database, copy)
        published(store, newest := upstream.release())
    commits = way.commits()

    lost_and_restored(settings, copy)
    with served(settings) as store:
        again = ShortWay(upstream=upstream, store=store)
        assert [run.release.sha for run in store.runs() if run.state == "done"][-1] == before, "what was done before is known"
        published(store, newest)
        assert again.commits() == commits, "what was published after the backup is there already"
        assert again.manifest().upstream.sha == newest
        older = again.queued(before, again=True).id
        eventually(lambda: store.run(older).state == "superseded", 60)
        assert again.commits() == commits
        published(store, upstream.release())
        assert len(again.commits()) == len(commits) + 1
