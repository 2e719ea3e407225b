"""Runs that wait for the Hub, and what is still to do for runs that are done."""

from datetime import UTC, datetime

import pytest

from service.store import LeaseLost, Store
from tests.service.helpers import queue_run


def test_a_run_that_waits_is_taken_when_it_is_due_and_costs_no_attempt(store: Store) -> None:
    run = queue_run(store)
    for waits in (1, 2, 3, 4, 5):
        due = store.defer(run.id, store.lease("worker", seconds=60).lease, error="The Hub is down.", seconds=600).due
        waiting = store.run(run.id)
        assert (waiting.state, waiting.error, waiting.attempt, waiting.waits, waiting.worker) == ("queued", "The Hub is down.", 1, waits, None)
        assert waiting.due == due
        assert 500 < (due - datetime.now(UTC)).total_seconds() <= 600
        assert store.lease("worker", seconds=60) is None
        store.hasten()
    taken = store.lease("worker", seconds=60)
    assert (taken.error, taken.due, taken.waits) == (None, None, 5)
    store.finish(run.id, state="failed", error="no disk")
    assert (store.run(run.id).waits, store.run(run.id).due) == (0, None)


def test_a_waiting_run_holds_up_no_other(store: Store) -> None:
    first, second = queue_run(store, "upstream/a"), queue_run(store, "upstream/b")
    store.defer(first.id, store.lease("worker", seconds=60).lease, error="The Hub is down.", seconds=600)
    assert store.lease("worker", seconds=60).id == second.id


def test_hints_leave_a_waiting_run_alone_and_a_person_does_not(store: Store) -> None:
    run = queue_run(store)
    store.defer(run.id, store.lease("worker", seconds=60).lease, error="The Hub is down.", seconds=600)
    assert queue_run(store, attempts=3, trigger="poll").due is not None
    assert store.lease("other", seconds=60) is None
    assert queue_run(store, trigger="api").due is None
    assert store.lease("other", seconds=60).id == run.id


def test_a_waiting_run_is_carried_out_by_whoever_wants_this_one(store: Store) -> None:
    run = queue_run(store)
    store.defer(run.id, store.lease("worker", seconds=60).lease, error="The Hub is down.", seconds=600)
    assert store.lease("command", seconds=60, run=run.id).id == run.id


def test_nobody_defers_what_is_no_longer_theirs(store: Store) -> None:
    run = queue_run(store)
    slow = store.lease("slow", seconds=0)
    store.lease("quick", seconds=60)
    with pytest.raises(LeaseLost):
        store.defer(run.id, slow.lease, error="late", seconds=1)
    assert store.run(run.id).state == "running"


def test_a_follow_up_is_taken_when_it_is_due_by_one_and_gone_when_it_is_done(store: Store) -> None:
    run = queue_run(store).id
    for error in ("down", "still down"):
        store.put_follow_up(run, "collection", {"title": "model"}, error=error, seconds=0, source="poll")
    (item,) = store.follow_ups(run)
    assert (item.kind, item.details, item.error, item.attempts) == ("collection", {"title": "model"}, "still down", 2)
    assert store.take_follow_up("other") is None
    assert store.take_follow_up("collection").run == run
    assert store.take_follow_up("collection") is None, "somebody is at it"
    for _ in range(2):
        store.settle_follow_up(run, "collection", source="poll")
    assert store.follow_ups() == ()
    assert [event.action for event in store.audit_events(subject=f"run/{run}")][:3] == ["collection done", "collection deferred", "collection deferred"]


@pytest.mark.parametrize(("wish", "state"), [("cancel", "cancelled"), ("pause", "paused")])
@pytest.mark.parametrize("left", ["defer", "release"])
def test_what_a_person_wanted_is_done_when_the_run_is_put_back(store: Store, wish: str, state: str, left: str) -> None:
    run = queue_run(store)
    leased = store.lease("worker", seconds=60)
    getattr(store, wish)(run.id, source="api", details={})
    assert store.run(run.id).state == "running"
    if left == "defer":
        store.defer(run.id, leased.lease, error="The Hub is down.", seconds=600)
    else:
        assert store.release(run.id, "worker")
    ended = store.run(run.id)
    assert (ended.state, ended.wanted, ended.due, ended.finished is None) == (state, None, None, wish == "pause")
    assert store.lease("worker", seconds=60) is None
    assert [event.action for event in store.audit_events(subject=f"run/{run.id}")][:2] == [state, f"{wish} asked"]
    if wish == "pause":
        store.resume(run.id, source="api", details={})
        assert store.lease("worker", seconds=60).id == run.id
