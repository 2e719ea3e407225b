"""A PostgreSQL that lives and does not get on, because another session holds what is asked for: nobody waits for ever, and no run is lost by it."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress

import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError

from service.daemon import worker as module
from service.daemon.worker import Worker
from service.store import RunRecord, Store, database, open_store
from tests.service.helpers import eventually, queue_run, working

SECONDS = 2.0  # of a lease


@pytest.fixture
def hasty(postgres_url: str, monkeypatch: pytest.MonkeyPatch):
    """A store that waits for less than a second."""
    monkeypatch.setitem(database.PATIENCE, "options", "-c statement_timeout=2000 -c lock_timeout=300")
    monkeypatch.setattr(module, "TROUBLE_SECONDS", 0.1)
    opened = open_store(postgres_url)
    yield opened
    opened.close()


@pytest.fixture
def lock(postgres_url: str):
    """Locks the table of runs; what it returns lets go of it."""
    engine = sqlalchemy.create_engine(postgres_url)
    connection = engine.connect()

    def take() -> Callable[[], None]:
        connection.execute(sqlalchemy.text("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE"))
        return connection.rollback

    yield take
    connection.close()
    engine.dispose()


def test_no_statement_and_no_lock_is_waited_for_without_end(postgres_url: str) -> None:
    engine = database.connect(postgres_url)
    with engine.connect() as connection:
        assert [connection.scalar(sqlalchemy.text(f"SHOW {name}")) for name in ("statement_timeout", "lock_timeout")] == ["2min", "15s"]
    engine.dispose()


def test_what_is_locked_is_a_fault_of_the_moment(hasty: Store, lock: Callable[[], Callable[[], None]]) -> None:
    run = queue_run(hasty)
    let_go = lock()
    with pytest.raises(OperationalError, match="lock timeout") as refused:
        hasty.run(run.id)
    assert database.passes(refused.value)
    let_go()
    assert hasty.run(run.id).state == "queued"


def test_a_statement_that_takes_too_long_is_one_as_well_and_an_error_in_it_is_none(hasty: Store) -> None:
    with hasty.read() as session, pytest.raises(OperationalError, match="statement timeout") as late:
        session.execute(sqlalchemy.text("SELECT pg_sleep(30)"))
    with hasty.read() as session, pytest.raises(sqlalchemy.exc.ProgrammingError) as wrong:
        session.execute(sqlalchemy.text("SELECT nonsense"))
    assert (database.passes(late.value), database.passes(wrong.value)) == (True, False)


def ended(store: Store, run: int) -> bool:
    """Whoever looks may meet the lock as well."""
    with suppress(OperationalError):
        return store.run(run).state in {"done", "failed"}
    return False


def test_a_run_that_meets_a_lock_is_put_back_and_done_when_it_is_gone(hasty: Store, lock: Callable[[], Callable[[], None]]) -> None:
    attempts = []

    def execute(store: Store, run: RunRecord) -> None:
        attempts.append(run.attempt)
        if len(attempts) == 1:
            let_go = lock()
            try:
                store.run(run.id)
            finally:
                let_go()  # so that it can be written down as failed
        store.finish(run.id, state="done", lease=run.lease)

    run = queue_run(hasty)
    with working(Worker(hasty, execute), seconds=60):
        eventually(lambda: ended(hasty, run.id), seconds=60)
    assert (hasty.run(run.id).state, hasty.run(run.id).error, attempts) == ("done", None, [1, 1])


def test_a_healthy_run_outlives_an_outage_that_is_longer_than_its_lease(hasty: Store, postgres_url: str, lock: Callable[[], Callable[[], None]]) -> None:
    """Whoever asks first when the database is there again must not take it, for it is being carried out, and its lease is about to be renewed."""
    begun, done = threading.Event(), threading.Event()
    attempts = []

    def execute(store: Store, run: RunRecord) -> None:
        attempts.append((run.attempt, run.worker))
        begun.set()
        done.wait(60)
        store.finish(run.id, state="done", lease=run.lease)

    run = queue_run(hasty)
    with ExitStack() as stack:
        other = stack.enter_context(closing(open_store(postgres_url)))
        here, there = (Worker(store, execute, name=name, seconds=SECONDS) for store, name in ((hasty, "here/1/1"), (other, "there/2/2")))
        stack.enter_context(working(here, seconds=60))
        assert begun.wait(60)
        stack.enter_context(working(there, seconds=60))
        stack.callback(done.set)
        let_go = lock()
        time.sleep(2 * SECONDS)
        let_go()
        time.sleep(2 * SECONDS)
        done.set()
        eventually(lambda: ended(hasty, run.id), seconds=60)
    assert (hasty.run(run.id).state, attempts) == ("done", [(1, "here/1/1")])


def test_one_that_nobody_carries_out_is_taken_over_once_the_database_has_answered_for_as_long_as_a_lease(hasty: Store) -> None:
    run = queue_run(hasty)
    hasty.lease("gone/1/1", seconds=0)
    taken: list[float] = []

    def execute(store: Store, run: RunRecord) -> None:
        taken.append(store.steady())
        store.finish(run.id, state="done", lease=run.lease)

    with working(Worker(hasty, execute, seconds=SECONDS), seconds=60):
        eventually(lambda: ended(hasty, run.id), seconds=60)
    assert taken[0] >= SECONDS
    assert hasty.run(run.id).attempt == 2


def test_whoever_opens_it_waits_longer_for_another_process_that_migrates(hasty: Store, postgres_url: str) -> None:
    engine = sqlalchemy.create_engine(postgres_url)
    with engine.connect() as other:
        other.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": database.MIGRATION_LOCK})
        opened: list[Store] = []
        thread = threading.Thread(target=lambda: opened.append(open_store(postgres_url)))
        thread.start()
        thread.join(1.0)
        assert thread.is_alive(), "longer than `lock_timeout`"
        other.rollback()
        thread.join(30)
    engine.dispose()
    opened[0].close()
