"""`sluice backup`, and what an operator does with its file, as docs/operating.md says it."""

import json
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from config.errors import ConfigurationError
from service.cli.main import app
from service.store import open_store
from service.store.backup import back_up
from tests.service.helpers import queue_run


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


def test_a_server_s_database_is_backed_up_by_the_server_s_tool(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"pg_dump --format=custom --file=.*copy\.db postgresql://sluice:\*\*\*@db/sluice"):
        back_up("postgresql+psycopg://sluice:secret@db/sluice", tmp_path / "copy.db")
