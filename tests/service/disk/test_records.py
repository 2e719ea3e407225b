"""A database that does not grow for ever: what a service and `sluice prune` forget, and two years of runs on both databases.

Scaled down: ten runs a day would take five times as much.
"""

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from config.keep import Keep
from config.settings import Settings
from service.cli.main import app
from service.daemon.housekeeping import FORGET_SECONDS, Housekeeping
from service.disk.records import forget
from service.store import Store, open_store
from service.store.tables import Base
from tests.service.helpers import queue_run

A_DAY = 2  # runs
STEPS = 30  # of a run
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
TABLES = Base.metadata.tables


class Year:
    """Runs of a week at a time, written as they would have been."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._number = 0

    def week(self, begin: datetime) -> None:
        rows: dict[str, list[dict[str, Any]]] = {}
        for day in range(7):
            for _ in range(A_DAY):
                self._number += 1
                self._run(rows, self._number, begin + timedelta(days=day))
        with self._store.write() as session:
            for name, some in rows.items():
                session.execute(insert(TABLES[name]), some)

    def _run(self, rows: dict[str, list[dict[str, Any]]], number: int, at: datetime) -> None:
        def row(table: str, **values: Any) -> None:
            rows.setdefault(table, []).append(values)

        repo = f"upstream/model-{number % 20}"
        row("releases", id=number, repo=repo, sha=f"{number:040}", created=at)
        row(
            "runs", id=number, release_id=number, recipe="default", recipe_digest="d" * 64, namespace="ours", private=False, state="done", trigger="poll",
            attempt=1, created=at, queued=at, started=at, finished=at,
        )  # fmt: skip
        for step in range(STEPS):
            stage = number * STEPS + step
            row("stages", id=stage, run_id=number, name=f"step {step}", key=f"{stage:064}", state="done", started=at, seconds=1.0, stage=f"step {step}")
            row("artifacts", stage_id=stage, name="model", sha256="a" * 64, bytes=1000)
        for position in range(5):
            verdict = number * 5 + position
            results = [{"gate": "g", "outcome": "passed", "reason": "word " * 20}] * 5
            row("verdicts", id=verdict, run_id=number, position=position, tag=f"Q{position}", kind="gguf", outcome="passed", reasons=[], results=results)
            for figure in range(15):
                row("measurements", verdict_id=verdict, name=f"figure.{figure}", value=0.5, unit="nats", details=[])
        row("publications", run_id=number, repo=f"ours/{repo}", revision="1" * 40, url="", files=["model"], manifest_digest="m" * 64, changed=True, at=at)
        for event, action in enumerate(("queued", "done")):
            row("audit_events", at=at, source="poll", subject=f"run/{number}", action=action, details={"event": event})
        row("deliveries", place="chat", event=number, subject=f"run/{number}", ending="done", body="{}", state="delivered", attempts=1, created=at, due=at)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_years_take_no_more_than_one(store: Store) -> None:
    year, sizes, settings = Year(store), list[int](), Settings(keep=Keep())
    for week in range(104):
        year.week(BEGIN + timedelta(weeks=week))
        if week % 4 == 3:  # a service does so every day
            sizes.append(forget(store, settings, now=BEGIN + timedelta(weeks=week + 1)).bytes)
    one_year = sizes[13]
    assert one_year < 40_000_000, f"{one_year:,} bytes"
    assert sizes[-1] < 1.15 * one_year, f"{sizes[-1]:,} bytes after two years, {one_year:,} after one"
    runs = store.runs(limit=10_000)
    assert 365 * A_DAY - 7 * A_DAY <= len(runs) <= 365 * A_DAY + 28 * A_DAY
    assert len(store.deliveries(limit=10_000)) <= (30 + 28) * A_DAY


def old(store: Store, settings: Settings) -> None:
    """A service whose only old record is a message."""
    with store.write() as session:
        sent = datetime.now(UTC) - timedelta(days=settings.keep.message_days + 1)
        session.execute(
            insert(TABLES["deliveries"]).values(
                place="chat", event=1, subject="run/1", ending="done", body="{}", state="delivered", attempts=1, created=sent, due=sent
            )
        )


def test_a_service_forgets_once_a_day_and_says_so(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path / "home")
    keeper = Housekeeping(store, settings)
    old(store, settings)
    keeper.look()
    (event,) = store.audit_events(subject="database")
    assert (event.source, event.action, event.details["messages"]) == ("housekeeping", "forgotten", 1)
    assert store.deliveries() == ()
    old(store, settings)
    keeper.look()
    assert len(store.deliveries()) == 1, "not yet"
    later = time.monotonic() + FORGET_SECONDS
    monkeypatch.setattr(time, "monotonic", lambda: later)
    keeper.look()
    assert store.deliveries() == ()


def test_the_database_is_not_written_anew_while_a_run_is_at_work(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    compacted = []
    monkeypatch.setattr(store, "compact", lambda: compacted.append(True))
    run = queue_run(store).id
    store.lease("worker", seconds=3600)
    Housekeeping(store, Settings(home=tmp_path / "home")).look()
    assert compacted == []
    store.finish(run, state="done")
    Housekeeping(store, Settings(home=tmp_path / "home")).look()
    assert compacted == [True]


def test_prune_tells_what_it_would_forget_and_forgets_it(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    store = open_store(settings.database)
    old(store, settings)

    def prune(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["prune", *arguments], env={"SLUICE_HOME": str(tmp_path / "home"), "COLUMNS": "120"})
        assert done.exit_code == 0, done.output
        return done.stdout

    assert "1 message would be forgotten" in prune("--dry-run")
    assert json.loads(prune("--dry-run", "--json"))["forgotten"] == {"messages": 1}
    assert "1 message forgotten" in prune()
    assert "no records forgotten" in prune()
    assert store.deliveries() == ()
    store.close()


@pytest.mark.parametrize(
    ("ages", "words"),
    [
        ({"days": 400.0}, "`run_days` .365. is less than `days` .400."),
        ({"run_days": 2000.0}, "`audit_days` .1095. is less than `run_days` .2000."),
        ({"message_days": 0}, "greater than 0"),
    ],
)
def test_ages_that_contradict_one_another_are_refused(ages: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Keep.model_validate(ages)
