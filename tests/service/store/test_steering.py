from datetime import timedelta
from typing import Literal

import alembic.command
import pytest
from sqlalchemy import create_engine, text

from bench.clock import Clock
from service.store import RunFilter, SteeringRefused, Store, UnknownRun, open_store
from service.store.access import Grant
from service.store.answers import KEPT_HOURS, WORK_SECONDS, Answer
from service.store.database import alembic_config
from tests.service.helpers import order, queue_run

ASKED = {"source": "test", "details": {"token": "ada"}}


def test_a_waiting_run_is_cancelled_at_once_and_queued_again_by_nobody_but_a_person(store: Store) -> None:
    run = queue_run(store)
    cancelled = store.cancel(run.id, **ASKED)
    assert (cancelled.state, cancelled.finished is not None) == ("cancelled", True)
    assert store.lease("worker", seconds=60) is None
    assert store.enqueue(order())[1] is False, "a poll of the same commit leaves it as it is"
    assert store.enqueue(order(), again=True)[1] is True
    with pytest.raises(UnknownRun):
        store.cancel(99, **ASKED)
    event = next(item for item in store.audit_events(subject=f"run/{run.id}") if item.action == "cancelled")
    assert (event.source, event.details) == ("test", {"token": "ada"})


def test_a_run_at_work_is_only_asked(store: Store) -> None:
    run = queue_run(store)
    store.lease("worker", seconds=60)
    assert (store.pause(run.id, **ASKED).state, store.wanted(run.id)) == ("running", "pause")
    with pytest.raises(SteeringRefused, match="to be paused"):
        store.pause(run.id, **ASKED)
    store.resume(run.id, **ASKED)
    assert store.wanted(run.id) is None
    store.cancel(run.id, **ASKED)
    assert store.finish(run.id, state="cancelled")
    ended = store.run(run.id)
    assert (ended.state, ended.wanted, ended.worker) == ("cancelled", None, None)
    with pytest.raises(SteeringRefused, match="is cancelled already"):
        store.cancel(run.id, **ASKED)


@pytest.mark.parametrize("state", ["failed", "held", "superseded"])
def test_a_run_that_is_to_be_cancelled_is_so_however_it_ended(store: Store, state: Literal["failed", "held", "superseded"]) -> None:
    run = queue_run(store)
    store.lease("worker", seconds=60)
    store.cancel(run.id, **ASKED)
    assert store.finish(run.id, state=state, error="It broke.")
    assert (store.run(run.id).state, store.run(run.id).error) == ("cancelled", "It broke.")
    assert store.enqueue(order(), attempts=3)[1] is False, "no poll takes it up again"


def test_a_run_that_a_person_resumes_is_that_person_s(store: Store) -> None:
    run = queue_run(store, trigger="poll")
    store.pause(run.id, **ASKED)
    assert store.resume(run.id, **ASKED).trigger == "test"


def test_a_run_that_nobody_is_at_is_cancelled_and_paused_at_once(store: Store) -> None:
    run = queue_run(store)
    store.lease("worker", seconds=0)
    assert store.pause(run.id, **ASKED).state == "paused"
    assert store.lease("worker", seconds=60) is None
    assert store.resume(run.id, **ASKED).state == "queued"
    store.lease("worker", seconds=0)
    assert store.cancel(run.id, **ASKED).state == "cancelled"
    with pytest.raises(SteeringRefused, match="not paused"):
        store.resume(run.id, **ASKED)


def test_the_highest_priority_is_taken_first_then_who_waits_longest(store: Store) -> None:
    runs = {name: queue_run(store, f"upstream/{name}").id for name in "abc"}
    store.prioritize(runs["c"], 5, **ASKED)
    store.prioritize(runs["a"], -1, **ASKED)
    expected = [runs["c"], runs["b"], runs["a"]]
    assert [run.id for run in store.waiting()] == expected
    assert [store.lease("worker", seconds=60).id for _ in range(3)] == expected
    with pytest.raises(SteeringRefused, match="from -100 to 100"):
        store.prioritize(runs["a"], 101, **ASKED)


def test_runs_are_found_by_what_they_are(store: Store) -> None:
    first = queue_run(store, "upstream/a_b")
    second = queue_run(store, "upstream/axb", recipe="other", namespace="theirs")

    def found(**wanted: object) -> list[int]:
        return [run.id for run in store.runs(wanted=RunFilter(**wanted))]

    assert found() == [second.id, first.id]
    assert found(repo="upstream/a_b") == [first.id], "no letter of a name is a wildcard"
    assert found(repo="upstream/a_*") == [first.id]
    assert found(repo="*/a*") == [second.id, first.id]
    assert found(recipe="other") == found(namespaces=("theirs",)) == [second.id]
    assert found(since=second.created) == [second.id]
    assert found(until=second.created) == [first.id]
    assert found(before=second.id, state="queued") == [first.id]
    left = store.enqueue(order(namespace="theirs", target="/somewhere", recipe_digest="e" * 64))[0]
    assert found(namespaces=("theirs",)) == [left.id, second.id]
    assert found(namespaces=()) == []


def test_an_answer_is_remembered_for_its_caller_and_key(store: Store) -> None:
    answer = Answer(request="r", status=202, location="/runs/1", body="{}")
    assert store.claim_answer("ada", "k", "r") is None
    assert store.claim_answer("ada", "k", "r").status is None
    store.keep_answer("ada", "k", answer)
    assert store.claim_answer("ada", "k", "other") == answer
    assert store.claim_answer("bob", "k", "r") is None
    store.drop_answer("ada", "k")
    assert store.claim_answer("ada", "k", "r") == answer, "only what has no answer can be given back"
    store.drop_answer("bob", "k")
    assert store.claim_answer("bob", "k", "r") is None


def test_a_request_that_broke_off_keeps_its_key_as_long_as_answers_are_kept(store: Store, clock: Clock) -> None:
    assert store.claim_answer("ada", "k", "r") is None
    clock.at += timedelta(seconds=WORK_SECONDS - 1)
    assert store.claim_answer("ada", "k", "r").broken is False
    clock.at += timedelta(seconds=2)
    found = store.claim_answer("ada", "k", "r")
    assert (found.status, found.broken) == (None, True)
    clock.at += timedelta(hours=KEPT_HOURS)
    assert store.claim_answer("ada", "k", "r") is None


def test_a_session_ends_with_its_token(store: Store) -> None:
    store.add_token("ada", "a" * 64, Grant(scopes=("read",)))
    (token,) = store.tokens()
    store.add_session("s" * 64, token, seconds=60, client="127.0.0.1")
    store.add_session("t" * 64, token, seconds=0, client="127.0.0.1")
    assert store.session_token("s" * 64).name == "ada"
    assert store.session_token("t" * 64) is None
    store.revoke_token("ada")
    assert store.session_token("s" * 64) is None


def test_what_an_older_version_cannot_know_becomes_what_it_can(database_url: str) -> None:
    store = open_store(database_url)
    paused, cancelled = queue_run(store, "upstream/a").id, queue_run(store, "upstream/b").id
    stage = store.stage_started(paused, "convert", "k")
    store.stage_finished(stage, state="done", seconds=1.0)
    store.pause(paused, **ASKED)
    store.cancel(cancelled, **ASKED)
    store.add_token("all", "a" * 64)
    store.add_token("some", "b" * 64, Grant(scopes=("read",)))
    store.close()
    engine = create_engine(database_url)
    with engine.begin() as connection:
        alembic.command.downgrade(alembic_config(connection), "0008")
        assert list(connection.execute(text("SELECT state FROM runs ORDER BY id")).scalars()) == ["queued", "failed"]
        assert list(connection.execute(text("SELECT name FROM api_tokens WHERE revoked IS NULL")).scalars()) == ["all"]
    engine.dispose()
    store = open_store(database_url)
    assert [stage.name for stage in store.stages(paused)] == ["convert"]
    assert [token.scopes for token in store.tokens()] == [("admin",), ("admin",)]
    store.close()
