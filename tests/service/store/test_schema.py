import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import alembic.command
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Integer, String, create_engine, inspect, select, text
from sqlalchemy.exc import IntegrityError

from config.errors import ConfigurationError
from config.wire import LARGEST
from config.words import Hold, Kind, Sample, Variant
from service.store import Artifact, VariantRecord, open_store
from service.store.database import alembic_config, newest_revision, revision
from service.store.tables import Base, RunRow
from tests.service.helpers import queue_run

OPEN = "import sys; from service.store import open_store; sys.stdin.readline(); open_store(sys.argv[1]).put_hints({'a/b': 'poll'})"


def described(engine: Engine) -> dict[str, Any]:
    """Everything that the database itself knows about its schema, in an order that does not depend on how it was made."""
    found = inspect(engine)
    tables = {}
    for name in sorted(set(found.get_table_names()) - {"alembic_version"}):
        tables[name] = {
            "columns": sorted((item["name"], str(item["type"]), item["nullable"], str(item["default"])) for item in found.get_columns(name)),
            "primary": found.get_pk_constraint(name),
            "foreign": sorted(map(str, found.get_foreign_keys(name))),
            "unique": sorted(map(str, found.get_unique_constraints(name))),
            "indexes": sorted(map(str, found.get_indexes(name))),
            "checks": sorted(map(str, found.get_check_constraints(name))),
        }
    triggers = {
        "sqlite": "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name",
        "postgresql": "SELECT tgname, pg_get_triggerdef(oid), pg_get_functiondef(tgfoid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgname",
    }
    with engine.connect() as connection:
        tables["triggers"] = [tuple(row) for row in connection.execute(text(triggers[engine.dialect.name]))]
    return tables


def emptied(engine: Engine) -> Engine:
    """The same database without what `open_store` made."""
    with engine.begin() as connection:
        alembic.command.downgrade(alembic_config(connection), "base")
    return engine


def test_the_largest_number_is_what_the_tables_hold(database_url: str) -> None:
    open_store(database_url).close()
    engine = create_engine(database_url)
    kinds = {type(column.type) for table in Base.metadata.tables.values() for column in table.primary_key if not isinstance(column.type, String)}
    assert kinds == {Integer}, "of 32 bits, on PostgreSQL"
    with engine.connect() as connection:
        assert connection.scalar(select(RunRow.id).where(RunRow.id == LARGEST)) is None
    engine.dispose()


def test_a_migrated_database_equals_a_fresh_one(database_url: str) -> None:
    open_store(database_url).close()
    engine = create_engine(database_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata) == []
    migrated = described(engine)
    assert migrated["runs"]["checks"]
    assert migrated["triggers"]
    Base.metadata.create_all(emptied(engine))
    assert described(engine) == migrated
    engine.dispose()


def test_migrations_can_be_undone(database_url: str) -> None:
    open_store(database_url).close()
    engine = emptied(create_engine(database_url))
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    engine.dispose()
    open_store(database_url).close()


def test_the_one_sample_of_an_older_version_becomes_the_first_of_several(database_url: str) -> None:
    variant, samples = Variant(tag="Q2_K", kind=Kind.GGUF), [Sample(basis={"kld": "text"}, windows="w"), Sample(basis={"mmlu": "questions"})]
    store = open_store(database_url)
    run = queue_run(store).id
    given = {"file": None, "bytes": None, "bpw": None, "measurements": (), "verdict": None}
    store.record_variant(run, VariantRecord(variant=variant, samples=tuple(samples), **given), position=0)
    store.record_variant(run, VariantRecord(variant=replace(variant, tag="Q4_0"), **given), position=1)
    store.close()
    engine = create_engine(database_url)
    with engine.begin() as connection:
        alembic.command.downgrade(alembic_config(connection), "0003")
        (old, _) = connection.execute(text("SELECT sample FROM verdicts ORDER BY position")).scalars()
    assert (json.loads(old) if isinstance(old, str) else old)["windows"] == "w"
    engine.dispose()
    store = open_store(database_url)
    assert [record.samples for record in store.variants(run)] == [(samples[0],), ()]
    store.close()


def test_a_stage_without_an_end_of_an_older_version_is_interrupted_and_artifacts_stay(database_url: str) -> None:
    artifacts = (Artifact(name="m.gguf", sha256="a" * 64, bytes=2**40), Artifact(name="log", sha256="b" * 64, bytes=0))
    store = open_store(database_url)
    run = queue_run(store).id
    store.lease("worker", seconds=60)
    store.stage_finished(store.stage_started(run, "convert", "k"), state="done", seconds=1.5, artifacts=artifacts)
    store.stage_started(run, "measure", "l", estimate=2.0)
    store.finish(run, state="failed", error="killed")
    store.close()
    engine = create_engine(database_url)
    states = text("SELECT state FROM stages ORDER BY id")
    with engine.begin() as connection:
        alembic.command.downgrade(alembic_config(connection), "0004")
        assert list(connection.execute(states).scalars()) == ["done", "failed"]
        connection.execute(text("UPDATE stages SET state = 'running' WHERE name = 'measure'"))
    store = open_store(database_url)
    with engine.connect() as connection:
        assert list(connection.execute(states).scalars()) == ["done", "interrupted"]
    assert [(stage.state, stage.seconds, stage.artifacts) for stage in store.stages(run)] == [("done", 1.5, artifacts), ("interrupted", None, ())]
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(text("UPDATE stages SET state = 'asleep'"))
    engine.dispose()
    store.close()


def test_a_held_run_failed_for_an_older_version_and_what_belongs_to_it_stays(database_url: str) -> None:
    store = open_store(database_url)
    run, artifacts = queue_run(store).id, (Artifact(name="m.gguf", sha256="a" * 64, bytes=2**40),)
    store.lease("worker", seconds=60)
    store.stage_finished(store.stage_started(run, "fix", "k"), state="done", seconds=1.5, artifacts=artifacts)
    store.record_variant(
        run, VariantRecord(variant=Variant(tag="Q2_K", kind=Kind.GGUF), file=None, bytes=None, bpw=None, measurements=(), verdict=None), position=0
    )
    store.record_holds(run, [Hold(subject="licence", reason="There is none.")])
    store.finish(run, state="held")
    store.close()
    engine = create_engine(database_url)
    with engine.begin() as connection:
        alembic.command.downgrade(alembic_config(connection), "0007")
        assert list(connection.execute(text("SELECT state, error FROM runs"))) == [("failed", "The release was held.")]
    engine.dispose()
    store = open_store(database_url)
    assert store.run(run).state == "failed"
    assert [(stage.name, stage.artifacts) for stage in store.stages(run)] == [("fix", artifacts)]
    assert [record.variant.tag for record in store.variants(run)] == ["Q2_K"]
    assert store.holds(run) == ()
    store.close()


def test_processes_that_open_a_new_database_at_once_all_succeed(database_url: str) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", OPEN, database_url], stdin=subprocess.PIPE, text=True) for _ in range(4)]
    for process in processes:
        process.communicate("go\n", timeout=60)
    assert [process.returncode for process in processes] == [0] * 4
    store = open_store(database_url)
    assert store.hints()[0].count == 4
    store.close()


def test_the_newest_schema_is_known_without_alembic(tmp_path: Path) -> None:
    open_store(f"sqlite:///{tmp_path / 'sluice.db'}").close()
    engine = create_engine(f"sqlite:///{tmp_path / 'sluice.db'}")
    with engine.connect() as connection:
        assert newest_revision() == ScriptDirectory.from_config(alembic_config(connection)).get_current_head() == revision(connection)
    engine.dispose()


def test_a_schema_from_the_future_is_refused(database_url: str) -> None:
    open_store(database_url).close()
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(ConfigurationError, match="newer than this program"):
        open_store(database_url)


def test_sqlite_has_write_ahead_logging_and_foreign_keys(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'sluice.db'}")
    with store.read() as session:
        pragmas = [session.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "foreign_keys", "busy_timeout")]
    store.close()
    assert pragmas == ["wal", 1, 30_000]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("mysql://somebody@host/name", "Only SQLite and PostgreSQL"),
        ("no url", "not usable"),
        ("sqlite:////proc/nowhere/sluice.db", "cannot be opened"),
        ("postgresql+psycopg://user:topsecret@127.0.0.1:1/name", "cannot be opened"),
    ],
)
def test_a_database_that_cannot_be_used_is_explained(wrong: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        open_store(wrong)
    assert "topsecret" not in str(caught.value)


def test_a_failed_migration_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_off(connection: Connection) -> None:
        alembic.command.upgrade(alembic_config(connection), "head")
        raise RuntimeError("power cut")

    database_url = f"sqlite:///{tmp_path / 'sluice.db'}"
    monkeypatch.setattr("service.store.database.migrate", break_off)
    with pytest.raises(RuntimeError, match="power cut"):
        open_store(database_url)
    engine = create_engine(database_url)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


def test_what_may_be_lost_to_a_power_cut_does_not_wait_for_the_disk(database_url: str) -> None:
    store = open_store(database_url)
    query = text("PRAGMA synchronous" if database_url.startswith("sqlite") else "SHOW synchronous_commit")
    modes = []
    for hasty in (False, True, False):
        with store.write(hasty=hasty) as session:
            modes.append(session.execute(query).scalar())
    store.close()
    assert modes == ([2, 1, 2] if database_url.startswith("sqlite") else ["on", "off", "on"])
